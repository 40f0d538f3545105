"""Who may use the model now: several answers together, by fair turns between people, or one change of the model alone."""

import time
from collections import Counter
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
    alone: bool = False
    asked: float = field(default_factory=time.monotonic)  # when its turn was last asked for


class Gate:
    """A lock for readers and writers, with an upper bound of readers.

    Turns go round between people: whoever has fewer answers under way or waiting is first. Nobody overtakes a change of
    the model. Places are held by ticket, not by thread, because Gradio continues one answer in several threads."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._line: list[Ticket] = []
        self._inside: list[Ticket] = []
        self._seconds = 5.0  # what an answer takes, as a moving mean

    @property
    def waiting(self) -> int:
        return len(self._line)

    @property
    def inside(self) -> int:
        return len(self._inside)

    def line_up(self, person: str = "", most: int | None = None, most_each: int | None = None) -> Ticket:
        """Raises TryLater where `most` wait already, or `most_each` of this person."""
        ticket = Ticket(person)
        with self._changed:
            own = sum(each.person == person for each in self._line)
            if most_each is not None and own >= most_each:
                reason = f"You have {own} questions waiting here, and no more can wait for one person."
                raise TryLater(reason, self._seconds)
            if most is not None and len(self._line) >= most:
                reason = f"The queue is full: {most} questions are waiting."
                raise TryLater(reason, self._seconds * most / max(1, len(self._inside)))
            self._line.append(ticket)
        return ticket

    def enter(self, ticket: Ticket, places: Callable[[], int], seconds: float) -> bool:
        """Go in when it is the ticket's turn and fewer than `places()` are inside; False if that takes longer.

        `places` is asked when it is this ticket's turn, because the model may have changed by then."""

        def may_enter() -> bool:
            ticket.asked = time.monotonic()
            return self._order()[0] is ticket and len(self._inside) < places()

        with self._changed:
            if not self._changed.wait_for(may_enter, seconds):
                return False
            self._line.remove(ticket)
            self._inside.append(ticket)
            ticket.asked = time.monotonic()
            self._changed.notify_all()
            return True

    def seconds_left(self, ticket: Ticket, places: int) -> float:
        """About how long the ticket will wait for its turn."""
        with self._changed:
            order = self._order()
        before = order.index(ticket) if ticket in order else 0
        return self._seconds * (before / places + 0.5)

    def leave(self, ticket: Ticket) -> None:
        """Give up the place, in the line or inside."""
        with self._changed:
            if ticket in self._inside:
                self._inside.remove(ticket)
                self._seconds += 0.2 * (time.monotonic() - ticket.asked - self._seconds)
            else:
                self._line.remove(ticket)
            self._changed.notify_all()

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

    def wait_until_empty(self, seconds: float) -> bool:
        """Whether everyone has gone within that time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._line and not self._inside, seconds)

    def _order(self) -> list[Ticket]:
        """The line in the order in which it will go in."""
        ordered: list[Ticket] = []
        turns, held = Counter(each.person for each in self._inside), time.monotonic() - STALE_SECONDS
        group: list[tuple[bool, int, int, Ticket]] = []
        for number, ticket in enumerate([*self._line, Ticket(alone=True)]):
            if ticket.alone:
                ordered += [each for *_, each in sorted(group, key=lambda entry: entry[:3])]
                group = []
                ordered.append(ticket)
                continue
            group.append((ticket.asked < held, turns[ticket.person], number, ticket))
            turns[ticket.person] += 1
        return ordered[:-1]
