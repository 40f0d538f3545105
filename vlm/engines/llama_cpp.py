"""The llama.cpp engine: GGUF weights on a CPU, several answers decoded in one batch.

One thread owns llama.cpp. In each step it decodes the next token of every answer under way and the next piece of a prompt;
answers with the adapter on and off take turns, since the LoRA applies to a whole batch. What was read stays in the
cache (slots.py), so that a conversation's next question reads only what is new.
"""

import ctypes
import queue
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # comes with accelerate
import torch
from torch import Tensor

from vlm.engines import Prompt, Sampling, keys_within, next_key, picture_digest
from vlm.engines.fused_words import FusedWords
from vlm.engines.llama_library import Batch, load_library
from vlm.engines.sampling import Sampler
from vlm.engines.slots import Slot, Slots
from vlm.errors import UserError

PARALLEL = 8  # answers decoded at once
SLOTS = 24  # conversations whose beginnings are remembered, while there is room
CHUNK = 64  # positions of a prompt read in one step: others go on meanwhile, and a stop takes effect after it
FEW = 4  # next tokens decoded at once: from eight to fifteen on, this build's products take as long as for sixteen
PATIENCE = 0.25  # seconds without a token, after which whoever waits may stop
ENDED = object()
# llama.cpp's load mode: mapped, the file would stay in memory beside the repacked weights
LOAD_INTO_MEMORY = 0


@dataclass(eq=False)
class Job:
    """One answer under way. `fuse`: ids [n] -> their embeddings with the last picture in them; None where words are read as
    they are. `in_sight`: the digest of that picture."""

    prompt: list[np.ndarray]  # runs still to read: ids [n], or embeddings [n, Dl] in float32
    keys: list[Hashable]
    adapter: bool
    sampling: Sampling
    sampler: Sampler
    fuse: Callable[[np.ndarray], np.ndarray] | None = None
    in_sight: bytes | None = None
    out: "queue.SimpleQueue[Any]" = field(default_factory=queue.SimpleQueue)  # tokens, an error, ENDED
    stopped: bool = False
    slot: Slot | None = None
    token: int = -1  # the last one chosen, to be decoded next; -1 while the prompt is read
    written: int = 0

    def next(self) -> Any:
        """A token, an error or ENDED; None where nothing has come for a while."""
        try:
            return self.out.get(timeout=PATIENCE)
        except queue.Empty:
            return None

    def read(self, count: int) -> np.ndarray:
        """The next `count` positions of the first run, taken off it."""
        piece, rest = self.prompt[0][:count], self.prompt[0][count:]
        self.prompt[:1] = [rest] if len(rest) else []
        return piece


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
        self._model, self._context = _load(self._library, weights, cells)
        self._vocabulary = self._library.llama_vocab_n_tokens(
            self._library.llama_model_get_vocab(self._model)
        )
        self.embedding_size = self._library.llama_model_n_embd(self._model)
        self._memory = self._library.llama_get_memory(self._context)
        self._freed = False
        try:
            self._lora = _load_lora(self._library, self._model, lora) if lora else None
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

    def stream(self, prompt: Prompt, adapter: bool, sampling: Sampling) -> Iterator[int | None]:
        keys = keys_within(self.context, prompt, sampling, beside=self._fused is not None)
        differs = adapter and (self._lora is not None or self._fused is not None)
        job = Job([], keys, differs, sampling, Sampler(sampling))
        self._lay_out(job, prompt, adapter)
        with self._changed:
            if self._closed:
                raise UserError("The model has been unloaded. Please ask again.")
            self._waiting.append(job)
            self._changed.notify()
        try:
            while (item := job.next()) is not ENDED:
                if isinstance(item, BaseException):
                    raise item
                yield item
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


class BatchRows:
    """The arrays of a llama.cpp batch, used again for every step."""

    def __init__(self, size: int, embedding_size: int) -> None:
        self.tokens: np.ndarray = np.zeros(size, np.int32)
        self.embeddings: np.ndarray = np.zeros((size, embedding_size), np.float32)
        self.positions: np.ndarray = np.zeros(size, np.int32)
        self.slots: np.ndarray = np.zeros(size, np.int32)
        self.wanted: np.ndarray = np.zeros(size, np.int8)
        # llama.cpp takes a list of slots for each row: here a list of one
        self.counts: np.ndarray = np.ones(size, np.int32)
        self.pointers: np.ndarray = self.slots.ctypes.data + self.slots.itemsize * np.arange(
            size, dtype=np.uint64
        )
        self.count = 0
        self.visual = False
        self.wanting: list[tuple[Job, int]] = []

    def add(self, job: Job, piece: np.ndarray, wants_scores: bool) -> None:
        """The next positions of a job: ids [n], or embeddings [n, Dl]; scores are wanted of the last. Behind the prompt it
        is one position, the token that was chosen last."""
        slot, rows = job.slot, slice(self.count, self.count + len(piece))
        assert slot is not None
        self.visual = piece.ndim == 2
        (self.embeddings if self.visual else self.tokens)[rows] = piece
        start = len(slot.keys)
        self.positions[rows] = np.arange(start, start + len(piece))
        self.slots[rows], self.wanted[rows] = slot.number, 0
        in_prompt = job.keys[start : start + len(piece)]
        slot.keys += in_prompt or [next_key(job.token, job.in_sight)]
        self.count += len(piece)
        if wants_scores:
            self.wanted[self.count - 1] = 1
            self.wanting.append((job, self.count - 1))

    def take(self) -> tuple[Batch, list[tuple[Job, int]]]:
        """The batch, and the rows whose scores are wanted; what is added next makes another."""
        batch = Batch(n_tokens=self.count)
        if self.visual:
            batch.embd = _pointer(self.embeddings, ctypes.c_float)
        else:
            batch.token = _pointer(self.tokens, ctypes.c_int32)
        batch.pos = _pointer(self.positions, ctypes.c_int32)
        batch.n_seq_id = _pointer(self.counts, ctypes.c_int32)
        batch.seq_id = _pointer(self.pointers, ctypes.POINTER(ctypes.c_int32))
        batch.logits = _pointer(self.wanted, ctypes.c_int8)
        wanting, self.wanting, self.count = self.wanting, [], 0
        return batch, wanting


def _pointer(array: np.ndarray, kind: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(kind))


def _as_run(segment: list[int] | Tensor) -> np.ndarray:
    if isinstance(segment, Tensor):
        return np.ascontiguousarray(segment.detach().float().cpu().numpy())
    return np.array(segment, np.int32)


def _load(library: Any, weights: Path, cells: int) -> tuple[int, int]:
    """The model of a GGUF file, and a context with a cache of `cells` positions."""
    how = library.llama_model_default_params()
    how.n_gpu_layers, how.load_mode = 0, LOAD_INTO_MEMORY
    model = library.llama_model_load_from_file(str(weights).encode(), how)
    if not model:
        raise UserError(
            f"llama.cpp could not load {weights}. Where the file is damaged, remove it; it is fetched again."
        )
    sizes = library.llama_context_default_params()
    sizes.n_ctx, sizes.n_seq_max, sizes.kv_unified = cells, SLOTS, True
    sizes.n_batch = sizes.n_ubatch = CHUNK + PARALLEL
    sizes.n_outputs_max = sizes.n_seq_max
    sizes.n_threads = sizes.n_threads_batch = psutil.cpu_count(logical=False) or 1
    context = library.llama_init_from_model(model, sizes)
    if not context:
        library.llama_model_free(model)
        raise UserError(
            f"There is too little memory for a cache of {cells} tokens. Lower language.cache_tokens in the preset."
        )
    return model, context


def _load_lora(library: Any, model: int, lora: Path) -> int:
    loaded = library.llama_adapter_lora_init(model, str(lora).encode())
    if not loaded:
        raise UserError(
            f"llama.cpp could not load the adapter {lora}: it does not fit this language model, or is damaged. "
            "Remove the file; it is made again from the adapter's folder."
        )
    return loaded
