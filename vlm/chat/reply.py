"""The one way from a question to an answer: see -> prompt -> draft -> tidy -> clean up.

The page, the API, the shell, Python and the evaluation all go through `reply`. A question about a picture goes to the
language model with the adapter on, and its draft through a clean-up pass with the adapter off. Text goes to the base model.
"""

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from vlm.chat import clean_up
from vlm.chat.answer import Answer, Picture, Settings, Turn
from vlm.chat.tidy import strip_echo, tidy, to_keywords
from vlm.chat.writer import Writer
from vlm.errors import UserError
from vlm.model.prompts import PromptTurn

Steps = Generator[Answer, None, Answer]  # yields snapshots on the way, returns the last one

MAX_PICTURES = 8  # in one conversation


@dataclass(frozen=True)
class Pipeline:
    """What a reply is made with."""

    writer: Writer
    image_system: str
    text_system: str | None = None  # None: the template's own

    def warm_up(self) -> None:
        self.writer.warm_up(self.image_system, self.text_system)

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
            answer = yield from self._draft(answer, [PromptTurn(*words) for words in said], (), settings)
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

    def _look(self, shown: Sequence[Sequence[Picture]]) -> list[list[Any]]:
        """The pictures before each question -> what is seen in them."""
        if sum(map(len, shown)) > MAX_PICTURES:
            raise UserError(f"A conversation can hold {MAX_PICTURES} pictures. Please start a new one.")
        return [self.writer.look(group) for group in shown]

    def _draft(
        self,
        answer: Answer,
        turns: Sequence[PromptTurn],
        sights: Sequence[Sequence[Any]],
        settings: Settings,
    ) -> Steps:
        """The language model's answer to the last turn; with the adapter where there are sights."""
        start = time.perf_counter()
        system = self.image_system if sights else settings.system or self.text_system
        answer = replace(answer, seed=settings.seed)
        with closing(self.writer.write(turns, sights, system, settings)) as writing:  # type: ignore[type-var]
            for written in writing:
                if written is not None:
                    passed = time.perf_counter() - start
                    seconds = {"first_token": passed} | answer.seconds | {"generate": passed}
                    answer = replace(answer, stage="drafting", seconds=seconds, **written._asdict())
                yield answer
        since_first = answer.seconds.get("generate", 0.0) - answer.seconds.get("first_token", 0.0)
        return replace(answer, tokens_per_second=(answer.tokens - 1) / since_first if since_first else 0.0)

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
        greedy = Settings(clean_up.MAX_NEW_TOKENS, repetition_penalty=1.0)
        rewriting = ""
        with closing(self.writer.write(turns, (), clean_up.SYSTEM, greedy)) as writing:  # type: ignore[type-var]
            for written in writing:
                rewriting = written.text if written else rewriting
                yield answer  # so that it can be stopped here as well
        text, verdict = clean_up.judge(question, answer.text, rewriting)
        seconds = answer.seconds | {"clean_up": time.perf_counter() - start}
        return replace(answer, text=text, clean_up=verdict, seconds=seconds)
