"""What was asked and answered so far -> the history for the next question, the trace of an answer, Markdown.

Plain data, without a model or a browser. Unusual: a `Conversation` is changed in place, so that an answer that
is cut off in the middle leaves what there was of it.
"""

import mimetypes
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypedDict

from vlm.chat.answer import Answer, Settings, Turn
from vlm.errors import UserError


class Composed(TypedDict):
    """What stands in the box for questions, pictures and recordings by their paths."""

    text: str
    files: list[str]


NOTHING: Composed = {"text": "", "files": []}


@dataclass(frozen=True)
class Exchange:
    """A question, typed or spoken or both, and as much of its answer as there is. Files are given by path, settings
    as they were when it was asked."""

    question: str
    pictures: tuple[str, ...] = ()
    recording: str | None = None
    settings: Settings | None = None
    answer: Answer | None = None

    @property
    def asked(self) -> str:
        """The typed and the spoken words; "" until a recording has been heard."""
        heard = self.answer.transcript if self.answer else None
        return " ".join(part for part in (self.question.strip(), heard) if part)

    @property
    def text(self) -> str:
        return self.answer.text if self.answer else ""

    @property
    def caption(self) -> str:
        """How it is named where it is offered as an example; a recording bears its words as its file's name."""
        words = Path(self.recording or "").stem.replace("-", " ")
        return self.question or f"{words[:1].upper()}{words[1:]}?"

    @property
    def files(self) -> list[str]:
        return [*self.pictures, *([self.recording] if self.recording else [])]

    def composed_before(self, composed: Composed) -> Composed:
        """This question back in the box, before what has been put there since."""
        texts = [text for text in (self.question, composed["text"]) if text.strip()]
        return {"text": "\n".join(texts), "files": [*self.files, *composed["files"]]}


def composed_exchange(composed: Composed, recording: str | None = None) -> Exchange:
    """The question that stands in the box, or was recorded beside it."""
    audio = [path for path in composed["files"] if (mimetypes.guess_type(path)[0] or "").startswith("audio/")]
    pictures = tuple(path for path in composed["files"] if path not in audio)
    recordings = [*audio, *([recording] if recording else [])]
    if len(recordings) > 1:
        raise UserError("Please send one recording at a time.")
    return Exchange(composed["text"], pictures, recordings[0] if recordings else None)


@dataclass
class Conversation:
    """What one person said and was told on one tab; `busy` from a question until its answer is settled.

    The word that an answer has come to its end can arrive late, when it was stopped and the next question is already
    being answered: it counts only where `finish` was told of the exchange that is the last one now."""

    exchanges: list[Exchange] = field(default_factory=list)
    busy: bool = False
    finished: bool = False

    def begin(self, exchange: Exchange, at: int | None = None) -> None:
        """Ask at the end, or in place of exchange number `at` and of all that came after it."""
        self.check_idle()
        self.exchanges[len(self.exchanges) if at is None else at :] = [exchange]
        self.busy, self.finished = True, False

    def grow(self, exchange: Exchange, answer: Answer) -> Exchange | None:
        """The last exchange with more of its answer; None if it was stopped or is gone, and the model does not know
        it yet."""
        if not self._is_current(exchange):
            return None
        self.exchanges[-1] = replace(exchange, answer=answer)
        return self.exchanges[-1]

    def to_answer(self) -> Exchange | None:
        """The last exchange, unless it has been answered or stopped."""
        return self.exchanges[-1] if self.busy and not self.finished and self.exchanges else None

    def finish(self, exchange: Exchange) -> None:
        """Its answer has come to its end, good or bad."""
        self.finished = self._is_current(exchange)

    def _is_current(self, exchange: Exchange) -> bool:
        return self.busy and bool(self.exchanges) and self.exchanges[-1] is exchange

    def check_idle(self) -> None:
        if self.busy:
            raise UserError("Please wait for the answer, or stop it first.")

    def settle(self) -> Exchange | None:
        """The answer has ended or was stopped: a question that got no words is taken out, and returned."""
        self.busy = False
        if self.exchanges and not self.exchanges[-1].text:
            return self.exchanges.pop()
        return None

    def clear(self) -> None:
        self.exchanges.clear()
        self.busy = False

    def history(self) -> list[Turn]:
        """All that came before the last question, as the assistant takes it."""
        return [Turn(each.asked, each.text, each.pictures) for each in self.exchanges[:-1]]


def trace_of(answer: Answer) -> list[tuple[str, str]]:
    """How an answer came about, as labels and values; what does not apply is left out."""
    seconds = ", ".join(f"{name.replace('_', ' ')} {value:.1f} s" for name, value in answer.seconds.items())
    speed = f"{answer.tokens} tokens, {answer.tokens_per_second:.1f} a second" if answer.tokens else None
    rows = [
        ("Heard", answer.transcript),
        ("Seen", answer.seen),
        ("Draft", answer.draft),
        ("Clean-up", answer.clean_up),
        ("Model", answer.model),
        ("Adapter", answer.adapter or "off"),
        ("Engine", answer.engine),
        ("Device", answer.device),
        ("Left out", f"{answer.left_out} earlier turns" if answer.left_out else ""),
        ("Set aside", f"{answer.set_aside} turns before the latest pictures" if answer.set_aside else ""),
        ("Time", seconds),
        ("Speed", speed),
    ]
    return [(label, value) for label, value in rows if value]


def to_markdown(exchanges: Sequence[Exchange]) -> str:
    """A conversation to keep: questions, names of pictures, answers and how they came about."""
    lines = ["# Conversation"]
    for exchange in exchanges:
        lines += ["", f"## {exchange.asked or 'A recording'}", ""]
        if exchange.pictures:
            lines += ["Pictures: " + ", ".join(Path(picture).name for picture in exchange.pictures), ""]
        lines += [exchange.text or "(no answer)", ""]
        lines += [f"- {label}: {value}" for label, value in trace_of(exchange.answer or Answer())]
    return "\n".join(lines) + "\n"
