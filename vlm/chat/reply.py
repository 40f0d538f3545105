"""The one way from a question to an answer: see -> prompt -> draft -> tidy -> clean up.

The page, the API, the shell, Python and the evaluation all go through `reply`. A question about a picture goes to the
language model with the adapter on, and its draft through a clean-up pass with the adapter off. Text goes to the base model.
"""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from vlm.chat import clean_up
from vlm.chat.answer import Answer, Picture, Settings, Turn
from vlm.chat.tidy import strip_echo, tidy, to_keywords
from vlm.engines import Engine, Prompt, Sampling
from vlm.errors import UserError
from vlm.inputs.images import open_image
from vlm.model.eyes import Eyes, Sight
from vlm.model.prompts import PromptTurn, encode, end_ids, segments

Steps = Generator[Answer, None, Answer]  # yields snapshots on the way, returns the last one

MAX_PICTURES = 8  # in one conversation
REMEMBERED_PICTURES = 64


class Sights:
    """What was seen in the latest pictures, so that a follow-up question does not look again."""

    def __init__(self, eyes: Eyes) -> None:
        self.eyes = eyes
        self._seen: OrderedDict[bytes, Sight] = OrderedDict()
        self._lock = threading.Lock()

    def see(self, pictures: Sequence[Picture]) -> list[Sight]:
        return [self._see(picture) for picture in pictures]

    def _see(self, picture: Picture) -> Sight:
        image = open_image(picture)
        key = hashlib.sha256(repr(image.size).encode() + image.tobytes()).digest()
        with self._lock:
            if key not in self._seen:
                (self._seen[key],) = self.eyes.see([image])
            self._seen.move_to_end(key)
            while len(self._seen) > REMEMBERED_PICTURES:
                self._seen.popitem(last=False)
            return self._seen[key]


@dataclass(frozen=True)
class Pipeline:
    """What a reply is made with. `sights` is None for a model without an adapter, which cannot see."""

    engine: Engine
    tokenizer: Any
    sights: Sights | None
    image_system: str
    text_system: str | None = None  # None: the template's own

    def warm_up(self) -> None:
        """Read what every conversation begins with, so that the first answers need not wait for it."""
        beginnings = [
            (encode(self.tokenizer, [PromptTurn("Hello")], 0, self.text_system), False),
            (encode(self.tokenizer, clean_up.request("What is this?", "A cat."), 0, clean_up.SYSTEM), False),
            (encode(self.tokenizer, [PromptTurn("Hello")], 0, self.image_system), True),
        ]
        for encoded, adapter in beginnings:
            list(self.engine.stream(segments(encoded.ids, []), adapter, Sampling(max_new_tokens=1)))

    def reply(
        self,
        answer: Answer,
        question: str,
        pictures: Sequence[Picture],
        history: Sequence[Turn],
        settings: Settings,
    ) -> Steps:
        """All that the model does for an answer, once the question is in words. Raises UserError."""
        shown = [turn.images for turn in history] + [tuple(pictures)]
        said = [(turn.question, turn.answer) for turn in history] + [(question, "")]
        if not any(shown):
            answer = yield from self._draft(answer, [PromptTurn(*words) for words in said], [], settings)
            text = answer.text.strip()
        else:
            answer = replace(answer, route="image", stage="looking")
            yield answer
            start = time.perf_counter()
            sights = self._look(shown)
            tags = [tuple(sight.tags for sight in group) for group in sights]
            seen = "; ".join(filter(None, next(filter(None, reversed(tags)))))
            answer = replace(
                answer, seen=seen, seconds=answer.seconds | {"look": time.perf_counter() - start}
            )
            prompt = [PromptTurn(*words, own) for words, own in zip(said, tags, strict=True)]
            answer = yield from self._draft(answer, prompt, sights, settings)
            answer = replace(answer, draft=answer.text.strip(), text=tidy(strip_echo(answer.text, question)))
            answer = yield from self.clean_up(answer, question, settings)
            text = answer.text
        return replace(answer, text=to_keywords(text) if settings.style == "keywords" else text)

    def _look(self, shown: Sequence[Sequence[Picture]]) -> list[list[Sight]]:
        """The pictures before each question -> what is seen in them."""
        if sum(map(len, shown)) > MAX_PICTURES:
            raise UserError(f"A conversation can hold {MAX_PICTURES} pictures. Please start a new one.")
        assert self.sights is not None, "checked by the assistant"
        return [self.sights.see(group) for group in shown]

    def _draft(
        self,
        answer: Answer,
        turns: Sequence[PromptTurn],
        sights: Sequence[Sequence[Sight]],
        settings: Settings,
    ) -> Steps:
        """The language model's answer to the last turn; with the adapter where there are sights."""
        start = time.perf_counter()
        prompt, left_out = self._fit(turns, sights, settings.max_new_tokens)
        answer = replace(answer, left_out=left_out, seed=settings.seed)
        ids: list[int] = []
        for text in self._stream(prompt, bool(sights), settings, ids):
            if text is None:
                yield answer
                continue
            passed = time.perf_counter() - start
            seconds = {"first_token": passed} | answer.seconds | {"generate": passed}
            answer = replace(answer, stage="drafting", text=text, seconds=seconds, tokens=len(ids))
            yield answer
        since_first = answer.seconds.get("generate", 0.0) - answer.seconds.get("first_token", 0.0)
        speed = (len(ids) - 1) / since_first if since_first else 0.0
        return replace(answer, ended=self._ended(ids), tokens_per_second=speed)

    def _fit(
        self, turns: Sequence[PromptTurn], sights: Sequence[Sequence[Sight]], answer_length: int
    ) -> tuple[Prompt, int]:
        """The prompt, without the oldest turns where all would not fit, and how many those are.

        Turns go by half a context at a time, counted from the first: what follows is read anew then, and that is not to
        happen again at the next question. Pictures of a turn that is left out stay, since later questions may be about
        them."""
        visual_tokens = [sight.visual_tokens for group in sights for sight in group]
        per_picture = self.sights.eyes.tokens_per_picture if self.sights else 0
        system = self.image_system if sights else self.text_system

        def ids_of(some: Sequence[PromptTurn]) -> list[int]:
            return encode(self.tokenizer, some, per_picture, system).ids

        room, left_out = self.engine.context - answer_length, 0
        ids = ids_of(turns)
        if len(ids) > room:
            for left_out in _beginnings([len(ids_of([turn])) for turn in turns], room // 2):
                ids = ids_of(_from(turns, left_out))
                if len(ids) <= room:
                    break
            else:
                raise UserError(
                    f"The question takes {len(ids)} tokens and its answer up to {answer_length}, and at most "
                    f"{self.engine.context} fit. Please shorten the question or ask for a shorter answer."
                )
        return segments(ids, visual_tokens), left_out

    def _stream(
        self, prompt: Prompt, adapter: bool, settings: Settings, ids: list[int]
    ) -> Iterator[str | None]:
        """The text as it grows, None while there is none yet; its tokens are added to `ids`. Closing the iterator stops the
        model."""
        ends = end_ids(self.tokenizer)
        with closing(self.engine.stream(prompt, adapter, settings.sampling(ends))) as tokens:  # type: ignore[type-var]
            for token in tokens:
                if token is None:
                    yield None
                    continue
                ids.append(token)
                text = self.tokenizer.decode(ids, skip_special_tokens=True)
                if not text.endswith("\ufffd"):  # half of a character that takes several tokens
                    yield text

    def _ended(self, ids: Sequence[int]) -> bool:
        return bool(ids) and ids[-1] in end_ids(self.tokenizer)

    def clean_up(self, answer: Answer, question: str, settings: Settings) -> Steps:
        """The base model rewrites the draft; what it makes is taken only if it keeps the draft's meaning."""
        if not settings.clean_up or not answer.text:
            return replace(answer, clean_up="off")
        if clean_up.is_whole(answer.draft or ""):
            return replace(answer, clean_up="unchanged")
        answer = replace(answer, stage="cleaning")
        yield answer
        start = time.perf_counter()
        turns = clean_up.request(question, answer.text)
        prompt = segments(encode(self.tokenizer, turns, 0, clean_up.SYSTEM).ids, [])
        greedy = Settings(clean_up.MAX_NEW_TOKENS, repetition_penalty=1.0)
        rewriting = ""
        for text in self._stream(prompt, False, greedy, []):
            rewriting = text or rewriting
            yield answer  # so that it can be stopped here as well
        text, verdict = clean_up.judge(question, answer.text, rewriting)
        seconds = answer.seconds | {"clean_up": time.perf_counter() - start}
        return replace(answer, text=text, clean_up=verdict, seconds=seconds)


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
