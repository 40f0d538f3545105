"""Who may use the model now: several answers together, or one change of the model alone, in the order of arrival."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition


class Ticket:
    """One visitor's place in the line before the gate, and then behind it."""


class Gate:
    """A lock for readers and writers, with an upper bound of readers. Nobody is overtaken.

    Places are held by ticket, not by thread, because Gradio continues one answer in several threads."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._line: list[Ticket] = []
        self._inside: list[Ticket] = []

    def line_up(self) -> Ticket:
        ticket = Ticket()
        with self._changed:
            self._line.append(ticket)
        return ticket

    def enter(self, ticket: Ticket, places: Callable[[], int], seconds: float) -> bool:
        """Go in when the ticket is first in line and fewer than `places()` are inside; False if that takes longer.

        `places` is asked when it is this ticket's turn, because the model may have changed by then."""

        def may_enter() -> bool:
            return self._line[0] is ticket and len(self._inside) < places()

        with self._changed:
            if not self._changed.wait_for(may_enter, seconds):
                return False
            self._inside.append(self._line.pop(0))
            self._changed.notify_all()
            return True

    def leave(self, ticket: Ticket) -> None:
        """Give up the place, in the line or inside."""
        with self._changed:
            (self._inside if ticket in self._inside else self._line).remove(ticket)
            self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within it nobody is inside. The change stays first in line until it is done, so that nobody enters."""
        ticket = self.line_up()
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._line[0] is ticket and not self._inside)
            yield
        finally:
            self.leave(ticket)
