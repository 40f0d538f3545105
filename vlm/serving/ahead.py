"""What the model reads before anyone asks for it: how its prompts begin, and pictures that wait in a composer.

A wish is worked on whenever nobody is answered, the latest first, in one thread that lives while there are wishes. What is
asked meanwhile is answered the same, only later.
"""

import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

from vlm.chat.assistant import Assistant
from vlm.errors import UserError

Work = Callable[[Assistant], Iterator[None]]
LOOK_UP_SECONDS = 0.5  # how often it looks whether nobody is answered any more

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Wish:
    work: Work
    until: float  # monotonic time after which it is not wanted any more


class Ahead:
    """`while_idle`: work, and when to leave off -> whether it was all done. `over`: whether nothing is to be read any
    more."""

    def __init__(
        self, while_idle: Callable[[Work, Callable[[], bool]], bool], over: Callable[[], bool]
    ) -> None:
        self._while_idle, self._over = while_idle, over
        self._lock = threading.Lock()
        self._wishes: dict[Hashable, Wish] = {}  # the latest last
        self._thread: threading.Thread | None = None

    def wish(self, key: Hashable, work: Work, seconds: float = float("inf")) -> None:
        """Takes the place of the wish with the same key, if there is one."""
        with self._lock:
            self._wishes.pop(key, None)
            self._wishes[key] = Wish(work, time.monotonic() + seconds)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="read ahead", daemon=True)
                self._thread.start()

    def forget(self, key: Hashable) -> None:
        with self._lock:
            self._wishes.pop(key, None)

    def _work(self) -> None:
        while wish := self._next():
            if self._done(wish):
                with self._lock:
                    self._wishes = {key: each for key, each in self._wishes.items() if each is not wish}
            elif self._latest() is wish:
                time.sleep(LOOK_UP_SECONDS)

    def _next(self) -> Wish | None:
        """The latest wish that is still wanted. With None the thread is to end."""
        with self._lock:
            now = time.monotonic()
            self._wishes = {key: wish for key, wish in self._wishes.items() if wish.until > now}
            if self._over():
                self._wishes.clear()
            if not self._wishes:
                self._thread = None
            return self._latest()

    def _latest(self) -> Wish | None:
        return next(reversed(list(self._wishes.values())), None)

    def _done(self, wish: Wish) -> bool:
        try:
            return self._while_idle(wish.work, lambda: self._latest() is not wish)
        except UserError:
            return True  # it is said when the question comes
        except Exception:
            log.exception("What was read ahead failed; its question is answered without it.")
            return True
