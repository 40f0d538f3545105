"""The torch engine: whatever Transformers loads, on a GPU or a CPU, with the LoRA in PEFT's own form.

One answer at a time. What was read stays in Transformers' cache (slots.py), so that a conversation's next question reads
only what is new.
"""

import copy
import threading
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache

from vlm.engines import Prompt, Sampling, keys_within, next_key
from vlm.engines.sampling import Sampler
from vlm.engines.slots import Place, Slot, Slots
from vlm.errors import UserError
from vlm.model.fusion import Fusion
from vlm.model.fusion.prefix import Prefix
from vlm.model.language import LanguageModel

SLOTS = 4
CHUNK = 256  # positions of a prompt read at once; a stop takes effect after it


class LaidOut(NamedTuple):
    """A prompt as it is read: embeddings [T, Dl], how many pictures beside the prompt stand before each [T], and the
    fusion's view of these pictures."""

    embeds: Tensor
    seen: Tensor
    view: Any


class TorchEngine:
    """`cells`: positions in the caches of all conversations together; `context`: in that of one."""

    name = "torch"
    parallel = 1
    reads_ahead = False  # a question would have to wait

    def __init__(
        self, language: LanguageModel, device: str, context: int, cells: int, fusion: Fusion | None = None
    ) -> None:
        self.language, self.device, self.context = language, device, context
        self.fusion = fusion or Prefix()
        self._slots = Slots(SLOTS, max(cells, context))
        self._caches: dict[int, DynamicCache] = {}
        self._lock = threading.Lock()  # whether the LoRA is on is state of the model
        self._closed = False

    def stream(self, prompt: Prompt, adapter: bool, sampling: Sampling) -> Generator[int | None, None, None]:
        """With the adapter off, a fusion from beside the prompt is off too: the base model sees no pictures."""
        keys = keys_within(self.context, prompt, sampling, self.fusion.beside)
        with self._lock:
            self._check_open()
            differs = adapter and (self.language.has_lora or self.fusion.beside)
            place = self._slots.take(keys, differs, sampling.max_new_tokens)
            assert place is not None, "no answer is under way, so that there is room for one"
            slot = place.slot
            try:
                cache = self._cache_of(place)
                with self.language.lora(adapter):
                    yield from self._generate(slot, cache, self._lay_out(prompt, adapter), keys, sampling)
            except BaseException as error:
                if not isinstance(error, GeneratorExit):  # what is in the cache is not known
                    self._forget(slot)
                if isinstance(error, torch.OutOfMemoryError):  # what nobody uses makes room for the next try
                    for each in self._slots.slots:
                        self._forget(each)
                raise
            finally:
                self.fusion.rest()
                self._slots.release(slot)

    def close(self) -> None:
        self._closed = True
        self._caches.clear()

    def _forget(self, slot: Slot) -> None:
        self._caches.pop(slot.number, None)
        self._slots.empty(slot)

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
        self, slot: Slot, cache: DynamicCache, laid: "LaidOut", keys: list[Any], sampling: Sampling
    ) -> Iterator[int | None]:
        sampler = Sampler(sampling)
        in_sight = keys[-1][1] if laid.seen[-1] else None
        kept = len(slot.keys)
        for start in range(kept, len(keys), CHUNK):
            if start > kept:
                yield None
            piece = slice(start, start + CHUNK)
            embeds = self._fuse(laid.embeds[piece], laid.seen[piece], laid.view)
            scores = self._read(slot, cache, embeds, keys[piece])
        for count in range(1, sampling.max_new_tokens + 1):
            token = sampler.pick(scores.float().cpu().numpy())
            yield token
            if token in sampling.end_ids or count == sampling.max_new_tokens:
                return
            embeds = self._fuse(self.language.embed(torch.tensor([token])), laid.seen[-1:], laid.view)
            scores = self._read(slot, cache, embeds, [next_key(token, in_sight)])

    @torch.inference_mode()
    def _lay_out(self, prompt: Prompt, adapter: bool) -> "LaidOut":
        parts: list[Tensor] = []
        pictures: list[Tensor] = []
        seen: list[int] = []
        for segment in prompt:
            if isinstance(segment, Tensor):
                read = segment.to(self.language.model.device, self.language.dtype)
            else:
                read = self.language.embed(torch.tensor(segment))
            if isinstance(segment, Tensor) and self.fusion.beside:
                pictures.append(read)
            else:
                parts.append(read)
                seen += [len(pictures)] * len(segment)
        view = self.fusion.view(torch.stack(pictures)[None]) if pictures and adapter else None
        return LaidOut(torch.cat(parts), torch.tensor(seen, device=parts[0].device), view)

    @torch.inference_mode()
    def _fuse(self, embeds: Tensor, seen: Tensor, view: Any) -> Tensor:
        return self.fusion.fuse(embeds[None], seen[None], view)[0]

    @torch.inference_mode()
    def _read(self, slot: Slot, cache: DynamicCache, embeds: Tensor, keys: list[Any]) -> Tensor:
        """Read the next positions; the scores of what follows them, [V]."""
        self._check_open()
        states = self.language.causal.get_decoder()(
            inputs_embeds=embeds.unsqueeze(0), past_key_values=cache, use_cache=True
        ).last_hidden_state[0, -1]
        slot.keys += keys
        return self.language.scores(states.unsqueeze(0))[0]
