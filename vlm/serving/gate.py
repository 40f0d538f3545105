"""Who may use the model now: several answers together, by fair turns between people, or one change of the model alone."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition

from vlm.serving.limits import TryLater

STALE_SECONDS = 3.0  # whoever has not asked for their turn for so long does not hold up the others


@dataclass(eq=False)
class Ticket:
    """One question's place in the line before the gate, and then behind it. `alone` is a change of the model."""

    person: str = ""
    turn: int = 0  # the round that it goes in with
    alone: bool = False
    ahead: bool = False  # of a question that is still to come
    asked: float = field(default_factory=time.monotonic)  # when its turn was last asked for


class Gate:
    """A lock for readers and writers, with an upper bound of readers.

    Turns go round between people: each has one question in a round, and the next in the round after it (fair queueing,
    Demers et al. 1989). Nobody overtakes a change of the model. Places are held by ticket, not by thread, because Gradio
    continues one answer in several threads."""

    def __init__(self, places: Callable[[], int]) -> None:
        """`places`: how many may be inside now, which can change with the model."""
        self._places = places
        self._changed = Condition()
        self._line: list[Ticket] = []
        self._inside: list[Ticket] = []
        self._round = 0  # of the question that went in last
        self._turns: dict[str, int] = {}  # person -> the round of their last question
        self.seconds_each = 5.0  # what an answer takes, as a moving mean

    @property
    def waiting(self) -> int:
        return len(self._line)

    @property
    def answering(self) -> int:
        """Inside, without what is read ahead."""
        return sum(not each.ahead for each in self._inside)

    def line_up(self, person: str = "", most: int | None = None, most_each: int | None = None) -> Ticket:
        """Raises TryLater where `most` wait already, or `most_each` of this person."""
        with self._changed:
            own = sum(each.person == person for each in self._line)
            if most_each is not None and own >= most_each:
                reason = f"You have {own} questions waiting here, and no more can wait for one person."
                raise TryLater(reason, self.seconds_each)
            if most is not None and len(self._line) >= most:
                reason = f"The queue is full: {most} questions are waiting."
                raise TryLater(reason, self.seconds_each * most / max(1, len(self._inside)))
            ticket = Ticket(person, max(self._round, self._turns.get(person, -1) + 1))
            self._turns = {name: turn for name, turn in self._turns.items() if turn >= self._round}
            self._turns[person] = ticket.turn
            self._line.append(ticket)
        return ticket

    def enter(self, ticket: Ticket, seconds: float) -> bool:
        """Go in when it is the ticket's turn and a place is free; False if that takes longer."""

        def may_enter() -> bool:
            ticket.asked = time.monotonic()
            return self._order()[0] is ticket and len(self._inside) < self._places()

        with self._changed:
            if not self._changed.wait_for(may_enter, seconds):
                return False
            self._line.remove(ticket)
            self._inside.append(ticket)
            self._round = max(self._round, ticket.turn)
            ticket.asked = time.monotonic()
            self._changed.notify_all()
            return True

    def enter_idle(self) -> Ticket | None:
        """Go in where nobody is inside or waits; None elsewhere. Whoever is inside so is to leave when others come."""
        with self._changed:
            if self._line or self._inside:
                return None
            ticket = Ticket(ahead=True)
            self._inside.append(ticket)
            return ticket

    def seconds_left(self, ticket: Ticket) -> float:
        """About how long the ticket will wait for its turn."""
        with self._changed:
            order = self._order()
        before = order.index(ticket) if ticket in order else 0
        return self.seconds_each * (before / self._places() + 0.5)

    def leave(self, ticket: Ticket) -> None:
        """Give up the place, in the line or inside."""
        with self._changed:
            if ticket in self._inside:
                self._inside.remove(ticket)
                if not ticket.ahead:
                    self.seconds_each += 0.2 * (time.monotonic() - ticket.asked - self.seconds_each)
            else:
                self._line.remove(ticket)
                if not ticket.alone:
                    self._give_round_back(ticket)
            self._changed.notify_all()

    def _give_round_back(self, given_up: Ticket) -> None:
        """To what else this person asks."""
        for each in self._line:
            if each.person == given_up.person and each.turn > max(given_up.turn, self._round):
                each.turn -= 1
        if self._turns.get(given_up.person, -1) >= self._round:
            self._turns[given_up.person] -= 1

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within it nobody is inside. The change stays first in line until it is done, so that nobody enters."""
        ticket = Ticket(alone=True)
        with self._changed:
            self._line.append(ticket)
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._order()[0] is ticket and not self._inside)
            yield
        finally:
            self.leave(ticket)

    def _order(self) -> list[Ticket]:
        """The line in the order in which it will go in."""
        held = time.monotonic() - STALE_SECONDS
        changes_before, keys = 0, {}
        for number, ticket in enumerate(self._line):
            changes_before += ticket.alone
            keys[ticket] = (changes_before, not ticket.alone, ticket.asked < held, ticket.turn, number)
        return sorted(self._line, key=keys.__getitem__)
