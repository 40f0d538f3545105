"""The one way from a question to an answer: see -> prompt -> draft -> tidy -> clean up.

The page, the API, the shell, Python and the evaluation all go through `reply`. A question about a picture goes to the
language model with the adapter on, and its draft through a clean-up pass with the adapter off. Text goes to the base model.
"""

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from vlm.chat import clean_up
from vlm.chat.answer import Answer, NoAnswer, Picture, Settings, Turn
from vlm.chat.one_by_one import is_beyond, joined, own_answer, since_latest_pictures
from vlm.chat.tidy import strip_echo, tidy
from vlm.chat.words import to_keywords
from vlm.chat.writer import Writer
from vlm.errors import UserError
from vlm.model.prompts import PromptTurn

Steps = Generator[Answer, None, Answer]  # yields snapshots on the way, returns the last one
Step = TypeVar("Step")
Last = TypeVar("Last")

MAX_PICTURES = 8  # that the adapter is told of in one conversation
ANY_QUESTION = "What"  # its words are read as well, and forgotten once the real ones come
SECONDS_ONCE = {"transcribe", "look", "first_token"}  # of several answers together


@dataclass(frozen=True)
class Pipeline:
    """What a reply is made with."""

    writer: Writer
    image_system: str
    text_system: str | None = None  # None: the template's own
    several_pictures: bool = True  # whether the adapter was trained on conversations about more than one
    # Whether answers about pictures are put right: those of a model that writes well, even JSON or a table, are left alone
    puts_right: bool = True

    def read_ahead(self, pictures: Sequence[Picture], history: Sequence[Turn]) -> Iterator[None]:
        """Read what stands before a question that is still to come, pictures and tags, so that its answer begins sooner;
        closing the iterator stops it. Raises UserError."""
        if not self.writer.reads_ahead:
            return
        for picture in pictures[:MAX_PICTURES]:  # one by one, so that it can be stopped between them
            self.writer.look([picture], ANY_QUESTION)
            yield
        one_token = Settings(max_new_tokens=1, clean_up=False)
        with suppress(NoAnswer):  # the token need not be a word
            for _ in self.reply(Answer(), ANY_QUESTION, pictures, history, one_token):
                yield

    def reply(
        self,
        answer: Answer,
        question: str,
        pictures: Sequence[Picture],
        history: Sequence[Turn],
        settings: Settings,
        begun: str = "",
    ) -> Steps:
        """All that the model does for an answer, once the question is in words; `begun` is what there is of it already.
        Raises UserError."""
        turns = [*history, Turn(question, "", tuple(pictures))]
        if not any(turn.images for turn in turns):
            prompt = [PromptTurn(turn.question, turn.answer) for turn in turns]
            answer = yield from self._draft(answer, prompt, (), settings, begun)
            text = answer.text.strip()
            # what an answer that was cut goes on from
            draft = text if settings.style == "keywords" else None
            answer = _styled(replace(answer, text=text, draft=draft), settings)
        else:
            answer = yield from self._reply_about_pictures(answer, turns, settings, begun)
        if not answer.text and not answer.ended:
            raise NoAnswer(
                "The answer's length was used up before its first word. Please allow a longer one."
            )
        if not answer.text:
            raise NoAnswer("The model had nothing to say to this. Please ask it in other words.")
        return answer

    def _reply_about_pictures(
        self, answer: Answer, turns: Sequence[Turn], settings: Settings, begun: str
    ) -> Steps:
        answer = replace(answer, route="image", stage="looking")
        yield answer
        start = time.perf_counter()
        if not self.several_pictures:
            latest = since_latest_pictures(turns)
            earlier = any(turn.images for turn in turns[: -len(latest)])
            if is_beyond(turns[-1].question, len(latest[0].images), earlier):
                raise UserError(
                    "This model looks at one picture at a time and cannot compare them. Please ask about one of them alone."
                )
            answer, turns = replace(answer, set_aside=len(turns) - len(latest)), latest
        sights = self._look(turns)
        seen = "; ".join(sight.tags for sight in next(filter(None, reversed(sights))) if sight.tags)
        answer = replace(answer, seen=seen, seconds=answer.seconds | {"look": time.perf_counter() - start})
        if self.several_pictures or sum(map(len, sights)) == 1:
            return (yield from self._reply_to(answer, turns, sights, settings, begun))
        if begun:
            raise UserError("An answer about several pictures cannot go on. Please ask about one of them.")
        return (yield from self._reply_one_by_one(answer, turns, sights[0], settings))

    def _reply_one_by_one(
        self, answer: Answer, turns: Sequence[Turn], sights: Sequence[Any], settings: Settings
    ) -> Steps:
        """Ask the same about each of the pictures, all of which came with the first turn. A question that was stopped
        before this picture's answer is left out, and the picture stands before the next one."""
        *earlier, latest = turns
        answers: list[Answer] = []
        for place, sight in enumerate(sights):
            said = [replace(turn, answer=own_answer(turn.answer, place)) for turn in earlier]
            own = [*(turn for turn in said if turn.answer), latest]
            alone = [[sight], *([] for _ in own[1:])]
            with closing(with_last(self._reply_to(answer, own, alone, settings))) as snapshots:
                for snapshot in snapshots:
                    answers[place:] = [snapshot]
                    yield replace(snapshot, text=joined([each.text for each in answers]))
        return _summed(answers)

    def _reply_to(
        self,
        answer: Answer,
        turns: Sequence[Turn],
        sights: Sequence[Sequence[Any]],
        settings: Settings,
        begun: str = "",
    ) -> Steps:
        """Draft, tidy and clean up: the answer to the last of the turns, with what is seen before each."""
        question = turns[-1].question
        prompt = [
            PromptTurn(turn.question, turn.answer, tuple(sight.tags for sight in group))
            for turn, group in zip(turns, sights, strict=True)
        ]
        answer = yield from self._draft(answer, prompt, sights, settings, begun)
        draft = answer.text.strip()
        text = tidy(strip_echo(draft, question)) if self.puts_right else draft
        if not answer.ended and not draft.endswith("."):
            text = text.removesuffix(".")  # it was cut off, and no sentence ends there
        answer = replace(answer, draft=draft, text=text)
        return _styled((yield from self.clean_up(answer, question, settings)), settings)

    def _look(self, turns: Sequence[Turn]) -> list[list[Any]]:
        """What is seen in the pictures before each question."""
        check_count(sum(len(turn.images) for turn in turns))
        return [self.writer.look(turn.images, turn.question) for turn in turns]

    def _draft(
        self,
        answer: Answer,
        turns: Sequence[PromptTurn],
        sights: Sequence[Sequence[Any]],
        settings: Settings,
        begun: str,
    ) -> Steps:
        """The language model's answer to the last turn; with the adapter where there are sights."""
        start = time.perf_counter()
        system = self.image_system if sights else settings.system or self.text_system
        answer = replace(answer, seed=settings.seed)
        with closing(self.writer.write(turns, sights, system, settings, begun)) as writing:
            for written in writing:
                if written is not None:
                    passed = time.perf_counter() - start
                    seconds = dict(answer.seconds)
                    seconds.setdefault("first_token", passed)
                    seconds["generate"] = passed
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
        text, verdict = answer.text, ""
        try:
            for sampling in clean_up.TRIES:
                rewriting = ""
                with closing(self.writer.write(turns, (), clean_up.SYSTEM, sampling)) as writing:
                    for written in writing:
                        rewriting = written.text if written else rewriting
                        yield answer  # so that it can be stopped here as well
                text, verdict = clean_up.judge(question, answer.text, rewriting)
                if clean_up.is_whole(text):
                    break
        except UserError as problem:  # of a server: the draft is an answer without it
            verdict = f"failed: {problem}"
        seconds = answer.seconds | {"clean_up": time.perf_counter() - start}
        return replace(answer, text=text, clean_up=verdict, seconds=seconds)


def check_count(pictures: int) -> None:
    """Raises UserError where they are more than a conversation can hold."""
    if pictures > MAX_PICTURES:
        raise UserError(f"A conversation can hold {MAX_PICTURES} pictures. Please start a new one.")


def _summed(answers: Sequence[Answer]) -> Answer:
    """Answers about pictures in order -> one, with what all of them took."""
    names = dict.fromkeys(name for each in answers for name in each.seconds)
    taken = {name: sum(each.seconds.get(name, 0.0) for each in answers) for name in names}
    tokens = sum(each.tokens for each in answers)
    verdicts = [each.clean_up for each in answers]
    return replace(
        answers[-1],
        text=joined([each.text for each in answers]),
        draft=joined([each.draft or "" for each in answers]),
        clean_up=next((each for each in verdicts if each != "unchanged"), "unchanged"),
        ended=all(each.ended for each in answers),
        seconds=taken | {name: answers[0].seconds[name] for name in SECONDS_ONCE & answers[0].seconds.keys()},
        tokens=tokens,
        prompt_tokens=sum(each.prompt_tokens for each in answers),
        tokens_per_second=tokens / taken["generate"] if taken.get("generate") else 0.0,
    )


def _styled(answer: Answer, settings: Settings) -> Answer:
    return replace(answer, text=to_keywords(answer.text)) if settings.style == "keywords" else answer


def with_last(steps: Generator[Step, None, Last]) -> Generator[Step | Last, None, None]:
    """The snapshots, and what is returned behind them."""
    last = yield from steps
    yield last
