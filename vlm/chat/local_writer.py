"""The model in this process: a conversation -> a prompt of token ids and visual tokens -> the engine -> text."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from vlm.chat import clean_up
from vlm.chat.answer import Picture, Settings
from vlm.chat.writer import Written
from vlm.engines import Engine, Prompt, Sampling
from vlm.errors import UserError
from vlm.inputs.images import open_image
from vlm.model.eyes import Eyes, Sight
from vlm.model.prompts import PromptTurn, encode, end_ids, segments, text_ids

REMEMBERED_PICTURES = 64


class Sights:
    """What was seen in the latest pictures, so that a follow-up question does not look again."""

    def __init__(self, eyes: Eyes) -> None:
        self.eyes = eyes
        self._seen: OrderedDict[bytes, Sight] = OrderedDict()
        self._lock = threading.Lock()

    def see(self, pictures: Sequence[Picture], question: str) -> list[Sight]:
        read = question if self.eyes.connector.reads_questions else ""
        return [self._see(picture, read) for picture in pictures]

    def _see(self, picture: Picture, question: str) -> Sight:
        image = open_image(picture)
        key = hashlib.sha256(repr((image.size, question)).encode() + image.tobytes()).digest()
        with self._lock:
            if key not in self._seen:
                (sight,) = self.eyes.see([image], question)
                # a GPU's memory is for answers
                self._seen[key] = sight._replace(visual_tokens=sight.visual_tokens.cpu())
            self._seen.move_to_end(key)
            while len(self._seen) > REMEMBERED_PICTURES:
                self._seen.popitem(last=False)
            return self._seen[key]


@dataclass(frozen=True)
class LocalWriter:
    """`sights` is None for a model without an adapter, which cannot see."""

    engine: Engine
    tokenizer: Any
    sights: Sights | None

    @property
    def sees(self) -> bool:
        return self.sights is not None

    @property
    def reads_ahead(self) -> bool:
        if self.sights is None or self.sights.eyes.connector.reads_questions:
            return False
        return self.engine.reads_ahead

    def look(self, pictures: Sequence[Picture], question: str) -> list[Sight]:
        assert self.sights is not None, "checked by the assistant"
        return self.sights.see(pictures, question)

    def write(
        self,
        turns: Sequence[PromptTurn],
        sights: Sequence[Sequence[Sight]],
        system: str | None,
        settings: Settings,
        begun: str = "",
    ) -> Generator[Written | None, None, None]:
        ids = text_ids(self.tokenizer, begun)
        before, text = len(ids), begun
        prompt, left_out = yield from self._fit(turns, sights, system, settings.max_new_tokens, ids)
        read, ends = sum(map(len, prompt)), end_ids(self.tokenizer)
        sampling = replace(settings.sampling(ends), begun=tuple(ids))
        with closing(self.engine.stream(prompt, bool(sights), sampling)) as tokens:
            for token in tokens:
                if token is None:
                    yield None
                    continue
                ids.append(token)
                decoded = self.tokenizer.decode(ids, skip_special_tokens=True)
                if not decoded.endswith("\ufffd"):  # half of a character that takes several tokens
                    text = decoded
                yield Written(text, len(ids) - before, read, left_out, ended=token in ends)

    def warm_up(self, image_system: str, text_system: str | None) -> Iterator[None]:
        """Read what every conversation begins with, so that the first answers need not wait for it: the longest last."""
        hello = [PromptTurn("Hello")]
        for turns, system, adapter in (
            (hello, image_system, True),
            (hello, text_system, False),
            (clean_up.request("What is this?", "A cat."), clean_up.SYSTEM, False),
        ):
            ids = encode(self.tokenizer, turns, 0, system).ids
            with closing(
                self.engine.stream(segments(ids, []), adapter, Sampling(max_new_tokens=1))
            ) as reading:
                for _ in reading:
                    yield

    def _fit(
        self,
        turns: Sequence[PromptTurn],
        sights: Sequence[Sequence[Sight]],
        system: str | None,
        answer_length: int,
        begun: Sequence[int],
    ) -> Generator[None, None, tuple[Prompt, int]]:
        """The prompt with what the answer has `begun`, without the oldest turns where all would not fit, and how many those
        are. Yields between the turns that it counts, where it can be stopped: a long talk takes seconds.

        Turns go by half a context at a time, counted from the first: what follows is read anew then, and that is not to
        happen again at the next question. Pictures of a turn that is left out stay, since later questions may be about
        them."""
        visual_tokens = [sight.visual_tokens for group in sights for sight in group]
        per_picture = self.sights.eyes.tokens_per_picture if self.sights else 0

        def ids_of(some: Sequence[PromptTurn]) -> list[int]:
            return encode(self.tokenizer, some, per_picture, system).ids

        room, left_out = self.engine.context - answer_length - len(begun), 0
        ids = ids_of(turns)
        if len(ids) > room:
            sizes = []
            for turn in turns:
                yield
                sizes.append(len(ids_of([turn])))
            # from the shortest on: few of them fit
            for first in reversed(_beginnings(sizes, max(1, room // 2))):
                yield
                fewer = ids_of(_from(turns, first))
                if len(fewer) > room:
                    break
                ids, left_out = fewer, first
            if len(ids) > room and begun:
                raise UserError("This answer cannot grow any longer here.")
            if len(ids) > room:
                raise UserError(
                    f"The question takes {len(fewer)} tokens and its answer up to {answer_length}, and at most "
                    f"{self.engine.context} fit. Please shorten the question or ask for a shorter answer."
                )
        return segments([*ids, *begun], visual_tokens), left_out


def _beginnings(sizes: Sequence[int], step: int) -> list[int]:
    """The turns that a conversation may begin with where it is too long: the first behind each `step` tokens, and at
    worst the last one. They do not depend on what follows."""
    before = [0, *accumulate(sizes)]
    last = len(sizes) - 1
    return [turn for turn in range(1, last) if before[turn] // step > before[turn - 1] // step] + [last]


def _from(turns: Sequence[PromptTurn], first: int) -> list[PromptTurn]:
    """The turns from `first` on, with the pictures of those before it."""
    tags = tuple(each for turn in turns[: first + 1] for each in turn.picture_tags)
    return [replace(turns[first], picture_tags=tags), *turns[first + 1 :]]
