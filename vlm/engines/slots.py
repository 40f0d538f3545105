"""Which conversation's keys and values are where in the cache: pure bookkeeping, without a model.

A slot holds one prompt and its answer, with the adapter on or off. A new prompt takes over the beginning that it shares
with a slot: in place where it goes on from it, as a copy where it branches off. What was used least recently goes first.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile


@dataclass
class Slot:
    number: int
    adapter: bool = False
    keys: list[Hashable] = field(default_factory=list)  # what is in the cache, position by position
    reserved: int = 0  # positions that the answer under way may come to take
    used: int = 0  # when, by the number of prompts

    @property
    def busy(self) -> bool:
        return self.reserved > 0

    @property
    def size(self) -> int:
        return max(self.reserved, len(self.keys))

    def shared(self, keys: Sequence[Hashable]) -> int:
        """How many positions the two begin with alike."""
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self.keys, keys, strict=False)))


@dataclass(frozen=True)
class Place:
    """Where a prompt goes: its first `kept` positions are there already, once they are copied from the slot `source`
    (None: they are in `slot` itself). The slots in `evicted` are to be emptied first."""

    slot: Slot
    kept: int
    source: Slot | None
    evicted: tuple[Slot, ...]


class Slots:
    """`cells`: positions in the cache, for all slots together."""

    def __init__(self, count: int, cells: int) -> None:
        self.slots = [Slot(number) for number in range(count)]
        self.cells = cells
        self.clock = 0

    def take(self, keys: Sequence[Hashable], adapter: bool, answer: int) -> Place | None:
        """A place for a prompt and an answer of up to `answer` tokens; None while there is none."""
        idle = sorted((slot for slot in self.slots if not slot.busy), key=lambda slot: slot.used)
        if not idle:
            return None
        alike = [slot for slot in self.slots if slot.adapter == adapter and slot.keys]
        source = max(alike, key=lambda slot: (slot.shared(keys), not slot.busy), default=None)
        # the last position is read in any case, since its scores are wanted
        kept = min(source.shared(keys), len(keys) - 1) if source else 0
        if source and not source.busy and kept > len(source.keys) * 3 // 4:  # little of it is lost
            slot, copied = source, None
        else:
            empty = [each for each in idle if not each.keys]
            slot = (empty or [each for each in idle if each is not source] or idle)[0]
            copied = source if kept and slot is not source else None
            kept = kept if copied or slot is source else 0
        needed = len(keys) + answer
        evicted = self._make_room(needed, idle, keep=(slot, copied))
        if evicted is None and copied:  # rather read the beginning again than wait for what nobody uses
            kept, copied = 0, None
            evicted = self._make_room(needed, idle, keep=(slot, None))
        if evicted is None:
            return None
        self.clock += 1
        for each in evicted:
            each.keys = []
        slot.keys, slot.adapter, slot.reserved, slot.used = list(keys[:kept]), adapter, needed, self.clock
        return Place(slot, kept, copied, tuple(evicted))

    def _make_room(
        self, needed: int, idle: Sequence[Slot], keep: tuple[Slot | None, ...]
    ) -> list[Slot] | None:
        """The idle slots to empty, the least recently used first; None where that is not enough yet."""
        slot = keep[0]
        taken = sum(each.size for each in self.slots if each is not slot) + needed
        evicted = []
        for each in idle:
            if taken <= self.cells:
                break
            if each not in keep and each.keys:
                evicted.append(each)
                taken -= each.size
        return evicted if taken <= self.cells else None

    def release(self, slot: Slot) -> None:
        """Its answer has ended; what was read and written stays for what begins alike."""
        slot.reserved = 0

    def empty(self, slot: Slot) -> None:
        slot.keys, slot.reserved = [], 0
