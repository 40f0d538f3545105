"""The torch engine: whatever Transformers loads, on a GPU or a CPU, with the LoRA in PEFT's own form.

One answer at a time. What was read stays in Transformers' cache (slots.py), so that a conversation's next question reads
only what is new.
"""

import copy
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from vlm.engines import Prompt, Sampling, keys_within
from vlm.engines.sampling import Sampler
from vlm.engines.slots import Place, Slot, Slots
from vlm.errors import UserError
from vlm.model.language import LanguageModel

SLOTS = 4
CHUNK = 256  # positions of a prompt read at once; a stop takes effect after it


class TorchEngine:
    """`cells`: positions in the caches of all conversations together; `context`: in that of one."""

    name = "torch"
    parallel = 1

    def __init__(self, language: LanguageModel, device: str, context: int, cells: int) -> None:
        self.language, self.device, self.context = language, device, context
        self._slots = Slots(SLOTS, max(cells, context))
        self._caches: dict[int, DynamicCache] = {}
        self._lock = threading.Lock()  # whether the LoRA is on is state of the model
        self._closed = False

    def stream(self, prompt: Prompt, adapter: bool, sampling: Sampling) -> Iterator[int | None]:
        keys = keys_within(self.context, prompt, sampling)
        with self._lock:
            self._check_open()
            place = self._slots.take(keys, adapter and self.language.has_adapter, sampling.max_new_tokens)
            assert place is not None, "no answer is under way, so that there is room for one"
            slot = place.slot
            try:
                cache = self._cache_of(place)
                with self.language.lora(adapter):
                    yield from self._generate(slot, cache, prompt, keys, sampling)
            except BaseException as error:
                if not isinstance(error, GeneratorExit):  # what is in the cache is not known
                    self._caches.pop(slot.number, None)
                    self._slots.empty(slot)
                raise
            finally:
                self._slots.release(slot)

    def close(self) -> None:
        self._closed = True
        self._caches.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise UserError("The model was unloaded. Please ask again.")

    def _cache_of(self, place: Place) -> DynamicCache:
        """The keys and values of the first `place.kept` positions."""
        for slot in place.evicted:
            self._caches.pop(slot.number, None)
        number = place.slot.number
        if place.source:
            self._caches[number] = copy.deepcopy(self._caches[place.source.number])
        if place.kept:
            cache = self._caches[number]
            cache.crop(place.kept - cache.get_seq_length())  # how many go, as a negative number
        else:  # all positions in every layer, of a sliding window as well: a branch may begin at any of them
            cache = self._caches[number] = DynamicCache()
        return cache

    def _generate(
        self, slot: Slot, cache: DynamicCache, prompt: Prompt, keys: list[Any], sampling: Sampling
    ) -> Iterator[int | None]:
        sampler = Sampler(sampling)
        embeds = self._embed(prompt)
        kept = len(slot.keys)
        for start in range(kept, len(keys), CHUNK):
            if start > kept:
                yield None
            scores = self._read(slot, cache, embeds[start : start + CHUNK], keys[start : start + CHUNK])
        for count in range(1, sampling.max_new_tokens + 1):
            token = sampler.pick(scores.float().cpu().numpy())
            yield token
            if token in sampling.end_ids or count == sampling.max_new_tokens:
                return
            scores = self._read(slot, cache, self._embed([[token]]), [token])

    @torch.inference_mode()
    def _embed(self, prompt: Prompt) -> Tensor:
        """[T, Dl]"""
        parts = [
            segment.to(self.language.model.device, self.language.dtype)
            if isinstance(segment, Tensor)
            else self.language.embed(torch.tensor(segment))
            for segment in prompt
        ]
        return torch.cat(parts)

    @torch.inference_mode()
    def _read(self, slot: Slot, cache: DynamicCache, embeds: Tensor, keys: list[Any]) -> Tensor:
        """Read the next positions; the scores of what follows them, [V]."""
        self._check_open()
        states = self.language.causal.get_decoder()(
            inputs_embeds=embeds.unsqueeze(0), past_key_values=cache, use_cache=True
        ).last_hidden_state[0, -1]
        slot.keys += keys
        head = self.language.causal.get_output_embeddings()
        return head(states.to(head.weight.dtype).unsqueeze(0))[0]
