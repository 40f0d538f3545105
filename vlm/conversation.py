"""What was asked and answered so far -> the history for the next question, the trace of an answer, a Markdown file.

Pure data, without a model or a page. Unusual: a `Conversation` is changed in place, so that an answer that is cut off in
the middle leaves what there was of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vlm.assistant import Answer, Turn
from vlm.errors import UserError


@dataclass(frozen=True)
class Exchange:
    """A question, typed or spoken or both, and as much of its answer as there is. Pictures and recording are paths."""

    question: str
    pictures: tuple[str, ...] = ()
    recording: str | None = None
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
    def files(self) -> list[str]:
        return [*self.pictures, *([self.recording] if self.recording else [])]


@dataclass
class Conversation:
    """The exchanges of one person on one tab; `busy` from a question until its answer is finished or stopped."""

    exchanges: list[Exchange] = field(default_factory=list)
    busy: bool = False

    def begin(self, exchange: Exchange, at: int | None = None) -> None:
        """Ask at the end, or in place of exchange number `at` and of all that came after it."""
        self.check_idle()
        self.exchanges[len(self.exchanges) if at is None else at :] = [exchange]
        self.busy = True

    def check_idle(self) -> None:
        if self.busy:
            raise UserError("Please wait for the answer, or press Stop first.")

    def settle(self) -> Exchange | None:
        """The answer is finished or stopped: a question that got no words is taken out, and returned."""
        self.busy = False
        if self.exchanges and not self.exchanges[-1].text:
            return self.exchanges.pop()
        return None

    def history(self) -> list[Turn]:
        """All that came before the last question, as the assistant takes it."""
        return [Turn(each.asked, each.text, each.pictures) for each in self.exchanges[:-1]]


def trace_of(answer: Answer) -> list[tuple[str, str]]:
    """How an answer came about, as labels and values; what does not apply is left out."""
    seconds = ", ".join(f"{name.replace('_', ' ')} {value:.1f} s" for name, value in answer.seconds.items())
    rows = [
        ("Heard", answer.transcript),
        ("Draft", answer.draft),
        ("Clean-up", answer.clean_up),
        ("Model", answer.model),
        ("Adapter", answer.adapter or "off"),
        ("Device", answer.device),
        ("Time", seconds),
        ("Speed", f"{answer.tokens} tokens, {answer.tokens_per_second:.1f} a second" if answer.tokens else None),
    ]
    return [(label, value) for label, value in rows if value]


def to_markdown(exchanges: Sequence[Exchange]) -> str:
    """The conversation to keep: questions, names of pictures, answers and their traces."""
    return "\n".join(["# Conversation", *(line for each in exchanges for line in _markdown_lines(each))]) + "\n"


def _markdown_lines(exchange: Exchange) -> list[str]:
    pictures = ", ".join(Path(picture).name for picture in exchange.pictures)
    lines = ["", f"## {exchange.asked or 'Recording'}", ""]
    lines += [f"Pictures: {pictures}", ""] if pictures else []
    lines += [exchange.text or "(no answer)", ""]
    return lines + [f"- {label}: {value}" for label, value in trace_of(exchange.answer or Answer())]
