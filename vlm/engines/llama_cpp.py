"""The llama.cpp engine: GGUF weights on a CPU, several answers decoded in one batch.

One thread owns llama.cpp. In each step it decodes the next token of every answer under way and the next piece of a prompt;
answers with the adapter on and off take turns, since the LoRA applies to a whole batch. What was read stays in the
cache (slots.py), so that a conversation's next question reads only what is new.
"""

import ctypes
import threading
from collections import deque
from collections.abc import Generator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vlm.engines import Prompt, Sampling, keys_within, picture_digest
from vlm.engines.fused_words import FusedWords
from vlm.engines.llama_batch import BatchRows, Job
from vlm.engines.llama_library import load_library, load_lora, load_model
from vlm.engines.sampling import Sampler
from vlm.engines.slots import Slot, Slots
from vlm.engines.waiting import ENDED, parts_of
from vlm.errors import UserError

PARALLEL = 8  # answers decoded at once
SLOTS = 24  # conversations whose beginnings are remembered, while there is room
CHUNK = 64  # positions of a prompt read in one step: others go on meanwhile, and a stop takes effect after it
FEW = 4  # next tokens decoded at once: from eight to fifteen on, this build's products take as long as for sixteen


class LlamaCppEngine:
    """`cells`: positions in the cache, for all conversations together; `context`: for one, at most `cells`. `fused`: for
    a fusion that puts the picture into the words' embeddings; None where visual tokens stand in the prompt."""

    name = "llama.cpp"
    device = "CPU"
    parallel = PARALLEL
    reads_ahead = True

    def __init__(
        self, weights: Path, lora: Path | None, context: int, cells: int, fused: FusedWords | None = None
    ) -> None:
        if context > cells:
            raise UserError(
                f"language.context ({context}) is larger than language.cache_tokens ({cells}). Raise the latter."
            )
        self.context = context
        self._fused = fused
        self._library = load_library()
        self._model, self._context = load_model(self._library, weights, cells, SLOTS, CHUNK + PARALLEL)
        self._vocabulary = self._library.llama_vocab_n_tokens(
            self._library.llama_model_get_vocab(self._model)
        )
        self.embedding_size = self._library.llama_model_n_embd(self._model)
        self._memory = self._library.llama_get_memory(self._context)
        self._freed = False
        try:
            self._lora = load_lora(self._library, self._model, lora) if lora else None
        except BaseException:
            self._free()
            raise
        self._adapter_is_on = False
        self._slots = Slots(SLOTS, cells)
        self._rows = BatchRows(CHUNK + PARALLEL, self.embedding_size)
        self._waiting: deque[Job] = deque()
        self._active: list[Job] = []
        self._side = False  # whose turn it is: adapter on or off
        # Both libraries share one OpenMP runtime. Once its threads outnumber the cores they sleep at each barrier
        # instead of spinning, and a token has hundreds of them: a fifth slower, as soon as torch has had threads
        self._torch_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="llama.cpp", daemon=True)
        self._thread.start()

    def stream(self, prompt: Prompt, adapter: bool, sampling: Sampling) -> Generator[int | None, None, None]:
        keys = keys_within(self.context, prompt, sampling, beside=self._fused is not None)
        differs = adapter and (self._lora is not None or self._fused is not None)
        job = Job([], keys, differs, sampling, Sampler(sampling))
        self._lay_out(job, prompt, adapter)
        with self._changed:
            if self._closed:
                raise UserError("The model was unloaded. Please ask again.")
            self._waiting.append(job)
            self._changed.notify()
        try:
            yield from parts_of(job.out)
        finally:
            job.stopped = True

    def _lay_out(self, job: Job, prompt: Prompt, adapter: bool) -> None:
        """The prompt's runs. With a fusion, words behind a picture are embeddings with that picture in them."""
        for segment in prompt:
            if isinstance(segment, Tensor) and self._fused is not None:
                job.fuse = self._fused.behind(segment) if adapter else None
                job.in_sight = picture_digest(segment)
            elif len(segment):
                run = _as_run(segment)
                job.prompt.append(job.fuse(run) if job.fuse else run)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        if not self._freed:
            self._free()
            torch.set_num_threads(self._torch_threads)

    def _free(self) -> None:
        self._library.llama_free(self._context)
        self._library.llama_model_free(self._model)  # frees the LoRA with it
        self._freed = True

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._closed or self._waiting or self._active):
                    self._changed.wait()
                if self._closed:
                    for job in [*self._active, *self._waiting]:
                        job.out.put(UserError("The model was unloaded. Please ask again."))
                    return
            try:
                self._admit()
                self._step()
            except Exception as error:  # handed to those who wait; their places are free again
                for job in self._active:
                    self._forget(job)
                    job.out.put(error)
                self._active.clear()

    def _admit(self) -> None:
        """Give waiting jobs their places, in their order."""
        while self._waiting and len(self._active) < PARALLEL:
            job = self._waiting[0]
            if job.stopped:
                self._waiting.popleft()
                continue
            place = self._slots.take(job.keys, job.adapter, job.sampling.max_new_tokens)
            if place is None:
                return
            self._waiting.popleft()
            job.slot, left = place.slot, place.kept
            self._active.append(job)
            for slot in place.evicted:
                self._remove(slot, 0)
            if place.source:
                self._remove(place.slot, 0)
                self._library.llama_memory_seq_cp(
                    self._memory, place.source.number, place.slot.number, 0, place.kept
                )
            self._remove(place.slot, place.kept)
            while left:
                left -= len(job.read(left))

    def _remove(self, slot: Slot, start: int) -> None:
        self._library.llama_memory_seq_rm(self._memory, slot.number, start, -1)

    def _step(self) -> None:
        """Decode a token of each answer of one side, and a piece of a prompt."""
        for job in [job for job in self._active if job.stopped]:
            self._finish(job)
        sides = {job.adapter for job in self._active}
        if not sides:
            return
        self._side = (not self._side) if len(sides) == 2 else sides.pop()
        self._switch_adapter(self._side)
        jobs = [job for job in self._active if job.adapter == self._side]
        room = CHUNK
        for job in jobs:  # ids of prompts and of answers go together
            if job.prompt and job.prompt[0].ndim == 1 and room:
                room -= self._add_prompt(job, room)
            elif not job.prompt and not job.fuse:
                self._rows.add(job, np.array([job.token]), wants_scores=True)
                if self._rows.count == FEW:
                    self._decode()
        self._decode()
        for job in jobs:
            if job.prompt and job.prompt[0].ndim == 2:
                self._add_prompt(job, CHUNK)
                self._decode()
            elif not job.prompt and job.fuse:
                self._rows.add(job, job.fuse(np.array([job.token])), wants_scores=True)
                self._decode()

    def _add_prompt(self, job: Job, room: int) -> int:
        piece = job.read(room)
        self._rows.add(job, piece, wants_scores=not job.prompt)
        return len(piece)

    def _decode(self) -> None:
        """Decode the rows of the batch, and choose the next token where scores were wanted."""
        if not self._rows.count:
            return
        batch, wanting = self._rows.take()
        failed = self._library.llama_decode(self._context, batch)
        if failed:
            raise UserError(f"llama.cpp could not compute the answer (code {failed}). Please ask again.")
        for job, row in wanting:
            scores = self._library.llama_get_logits_ith(self._context, row)
            job.token = job.sampler.pick(np.ctypeslib.as_array(scores, (self._vocabulary,)))
            job.written += 1
            job.out.put(job.token)
            if job.token in job.sampling.end_ids or job.written >= job.sampling.max_new_tokens:
                self._finish(job)

    def _finish(self, job: Job) -> None:
        self._active.remove(job)
        self._slots.release(job.slot)  # type: ignore[arg-type]
        job.out.put(ENDED)

    def _forget(self, job: Job) -> None:
        """Empty the slot of a job that failed: what is in it is not known."""
        if job.slot:
            self._remove(job.slot, 0)
            self._slots.empty(job.slot)

    def _switch_adapter(self, on: bool) -> None:
        if on == self._adapter_is_on or self._lora is None:
            return
        loras = (ctypes.c_void_p * 1)(self._lora)
        scales = (ctypes.c_float * 1)(1.0)
        self._library.llama_set_adapters_lora(self._context, loras, int(on), scales)
        self._adapter_is_on = on


def _as_run(segment: list[int] | Tensor) -> np.ndarray:
    if isinstance(segment, Tensor):
        return np.ascontiguousarray(segment.detach().float().cpu().numpy())
    return np.array(segment, np.int32)
