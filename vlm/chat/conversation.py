"""What was asked and answered so far -> the history for the next question.

Plain data, without a model or a browser. A `Conversation` is changed in place, so that an answer that
is cut off in the middle leaves what there was of it.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypedDict

from vlm.chat.answer import Answer, Settings, Turn
from vlm.errors import UserError
from vlm.inputs.audio import is_recording


class Composed(TypedDict):
    """What stands in the box for questions, pictures and recordings by their paths."""

    text: str
    files: list[str]


MAX_QUESTIONS = 1_000  # one after the other
MAX_KEPT = 10_000  # in all ways together
FULL = "This conversation is full. Please start a new one."
NOTHING: Composed = {"text": "", "files": []}


@dataclass(frozen=True)
class Voted:
    """What a person thought of an answer, and the key of what was kept of that (vlm/chat/feedback.py)."""

    thumb: Literal["up", "down"]
    key: str


@dataclass(frozen=True)
class Exchange:
    """A question, typed or spoken or both, and as much of its answer as there is. Files are given by path, settings
    as they were when it was asked."""

    question: str
    pictures: tuple[str, ...] = ()
    recording: str | None = None
    settings: Settings | None = None
    answer: Answer | None = None
    begun: Answer | None = None  # a cut answer that is being continued
    voted: Voted | None = None

    @property
    def asked(self) -> str:
        """The typed and the spoken words; "" until a recording has been heard."""
        heard = self.answer.transcript if self.answer else None
        return " ".join(part for part in (self.question.strip(), heard) if part)

    @property
    def text(self) -> str:
        return self.answer.text if self.answer else ""

    @property
    def is_cut(self) -> bool:
        """Whether its answer was stopped, or ended by the length limit, so that it can be continued."""
        return bool(self.answer and not self.answer.ended and self.text)

    @property
    def present_pictures(self) -> tuple[str, ...]:
        """The pictures whose files are still there: uploads are deleted after some hours."""
        return tuple(path for path in self.pictures if Path(path).is_file())

    @property
    def files(self) -> list[str]:
        return [*self.pictures, *([self.recording] if self.recording else [])]

    def composed_before(self, composed: Composed) -> Composed:
        """This question back in the box, before what has been put there since."""
        texts = [text for text in (self.question, composed["text"]) if text.strip()]
        return {"text": "\n".join(texts), "files": [*self.files, *composed["files"]]}


def composed_exchange(composed: Composed, recording: str | None = None) -> Exchange:
    """The question that stands in the box, or was recorded beside it."""
    audio = [path for path in composed["files"] if is_recording(path)]
    pictures = tuple(path for path in composed["files"] if path not in audio)
    recordings = [*audio, *([recording] if recording else [])]
    if len(recordings) > 1:
        raise UserError("Please send one recording at a time.")
    return Exchange(composed["text"], pictures, recordings[0] if recordings else None)


def latest_pictures(exchanges: Sequence[Exchange]) -> tuple[str, ...]:
    """What the last exchange is about: the pictures that came latest, together."""
    return next((each.pictures for each in since_pictures(exchanges)), ())


def since_pictures(exchanges: Sequence[Exchange]) -> Sequence[Exchange]:
    """Those from the one that the latest pictures came with; all where none brought any."""
    places = [place for place, each in enumerate(exchanges) if each.pictures]
    return exchanges[max(places, default=0) :]


class Conversation:
    """What one person said and was told on one tab; `busy` from a question until its answer is settled.

        idle ── begin, go_on ──► busy ── grow, grow, … ──► finish ──► settle ──► idle

    A stop goes from wherever it comes straight to settle: what still grows then is not current any more, and its finish
    does not count. Settle keeps an answer with words, and takes out a question without.

    An earlier question that is asked again, or in other words, begins another way; the ways before it stay, and one can
    turn back to them. `editing` is the number of the question that the next one takes the place of, and `unsent` what stood
    in the box before it. `refused` is why the last question got no answer, until the next one.

    `cleared`: by its person, who does not want back what was there.

    The word that an answer has come to its end can arrive late, when it was stopped and the next question is already
    being answered: it counts only where `finish` was told of the exchange that is the last one now."""

    def __init__(self, exchanges: Sequence[Exchange] = ()) -> None:
        self.ways = [list(exchanges)]
        self.shown = 0
        self.busy = self.finished = False
        self.editing: int | None = None
        self.unsent: Composed = NOTHING
        self.refused = ""
        self.unheard = False  # whether it was refused because nothing was said in its recording
        self.key, self.cleared = "", False
        self._before: int | None = None  # the way that was shown when the last question began another
        self._edited: int | None = None  # `editing`, when it was asked

    @property
    def exchanges(self) -> list[Exchange]:
        """The way that is shown, from the first question to the last."""
        return self.ways[self.shown]

    def begin(self, exchange: Exchange, at: int | None = None) -> None:
        """Ask at the end, or in place of exchange number `at`, as another way from there."""
        self.check_idle()
        before = self.exchanges[:at]
        branches = len(before) < len(self.exchanges)
        kept = sum(map(len, self.ways)) + len(before) * branches
        # More than its record may hold (vlm/chat/records.py)
        if len(before) >= MAX_QUESTIONS or kept >= MAX_KEPT:
            raise UserError(FULL)
        self.key = self.key or secrets.token_hex(8)
        self._before, self._edited = None, self.editing if at == self.editing else None
        if branches:
            self._before = self.shown
            self.ways.append(before)
            self.shown = len(self.ways) - 1
        self.exchanges.append(exchange)
        self.busy, self.finished, self.editing, self.refused = True, False, None, ""

    def versions(self, number: int) -> list[int]:
        """Ways that part at exchange `number`, one for each version of it, in the order in which they were asked."""
        found: dict[int, int] = {}
        for way, exchanges in enumerate(self.ways):
            together = zip(exchanges[:number], self.exchanges[:number], strict=False)
            if len(exchanges) > number and all(one is other for one, other in together):
                found[id(exchanges[number])] = way  # the latest way with this version
        return list(found.values())

    def place(self, number: int) -> int:
        """Which of its versions exchange `number` is, from 0."""
        versions = [self.ways[way][number] for way in self.versions(number)]
        return next(place for place, each in enumerate(versions) if each is self.exchanges[number])

    def turn(self, number: int, step: int) -> None:
        """Show the version of exchange `number` that is so many steps away, and what followed it."""
        self.check_idle()
        if 0 <= number < len(self.exchanges):
            versions = self.versions(number)
            self.shown = versions[min(max(self.place(number) + step, 0), len(versions) - 1)]
        self.editing, self.refused = None, ""

    def vote(self, exchange: Exchange, voted: Voted | None) -> bool:
        """What is thought of its answer, in all ways that it is part of; False if it is part of none any more."""
        after, found = replace(exchange, voted=voted), False
        for way in self.ways:  # in place: an answer may grow in one of them meanwhile
            for place, each in enumerate(way):
                if each is exchange:
                    way[place], found = after, True
        return found

    def go_on(self) -> None:
        """Continue the last answer, which was cut off."""
        self.check_idle()
        if not self.exchanges or not self.exchanges[-1].is_cut:
            raise UserError("There is no answer here that was cut off.")
        self.exchanges[-1] = replace(self.exchanges[-1], begun=self.exchanges[-1].answer)
        self._before = self._edited = self.editing = None
        self.busy, self.finished, self.refused = True, False, ""

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

    def finish(self, exchange: Exchange, refused: str = "") -> None:
        """Its answer has come to its end, good or bad."""
        self.finished = self._is_current(exchange)
        if self.finished:
            self.refused = refused
            self.unheard = bool(refused and exchange.answer and exchange.answer.transcript == "")

    def _is_current(self, exchange: Exchange) -> bool:
        return self.busy and bool(self.exchanges) and self.exchanges[-1] is exchange

    def edit(self, number: int, composed: Composed) -> None:
        """Question `number` is to be asked in other words, which take the place of what stands in the box."""
        if self.editing is None:
            self.unsent = composed
        self.editing, self.refused = number, ""

    def take_unsent(self) -> Composed:
        """What is to stand in the box once the edited question is sent, or left as it was."""
        unsent, self.unsent = self.unsent, NOTHING
        return unsent

    def check_idle(self) -> None:
        if self.busy:
            raise UserError("Please wait for the answer, or stop it first.")

    def settle(self) -> Exchange | None:
        """The answer has ended or was stopped: a question that got no words is taken out, and what it was to take the place
        of is shown again. It is returned, and edited again if it was, unless it was the same question once more."""
        self.busy = False
        if not self.exchanges:
            return None
        last = self.exchanges[-1]
        if last.begun and last.answer:
            nothing_came = last.answer.stage != "done" and last.text == last.begun.text
            answer = last.begun if nothing_came else last.answer
            self.exchanges[-1] = replace(last, answer=answer, begun=None)
        if last.text:
            return None
        self.exchanges.pop()
        count = len(self.exchanges)
        self.editing, self._edited = self._edited, None
        before = self._before if self._before is not None else self._longer_way()
        if before is not None:
            way = self.shown
            del self.ways[way]
            self.shown, self._before = before - (before > way), None
            stands = self.exchanges[count] if len(self.exchanges) > count else None
            is_again = stands and self.editing is None and last.asked in (stands.question, stands.asked)
            return None if is_again else last
        return last

    def _longer_way(self) -> int | None:
        """Another way that begins with all of the one that is shown. It tells what a new version was to take the place of
        where that is not known, in a conversation that comes from its record."""
        count = len(self.exchanges)
        for number, way in enumerate(self.ways):
            begins = all(one is other for one, other in zip(way, self.exchanges, strict=False))
            if number != self.shown and len(way) >= count and begins:
                return number
        return None

    def clear(self) -> None:
        self.take_over(Conversation())
        self.cleared = True

    def take_over(self, other: "Conversation") -> None:
        """Become the other one, in place: handlers and answers under way hold this object."""
        self.__dict__.update(other.__dict__)

    def history(self) -> list[Turn]:
        """All that came before the last question, as the assistant takes it, with the pictures that are still there. Where
        that question brings none and the latest ones are gone there are none: it would be answered about others."""
        *before, asked = self.exchanges
        latest = next(iter(since_pictures(before)), asked)
        turns = self.history_before(-1)
        if latest.pictures and not latest.present_pictures and not asked.pictures:
            return [replace(turn, images=()) for turn in turns]
        return turns

    def history_before(self, number: int | None) -> list[Turn]:
        """All that came before exchange `number`; before one that is to come for None."""
        return [Turn(each.asked, each.text, each.present_pictures) for each in self.exchanges[:number]]
