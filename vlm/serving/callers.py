"""Who asks, and whether they still listen: what turns, limits and stops go by.

Every request carries its caller (vlm/serving/guard.py). Gradio answers in two requests: one leaves the question, another
reads the answer. So there the second one, which belongs to a session or to one event, is what listening means.
"""

import time
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

import gradio as gr
from gradio.context import LocalContext

from vlm.errors import UserError
from vlm.serving.uploads import Uploads

# Between leaving a question and reading its answer, and between two connections that read it
GRACE_SECONDS = 5.0
SCOPE_KEY = "vlm.caller"


class NobodyListens(UserError):
    """The answer is given up, because whoever asked is gone."""

    def __init__(self) -> None:
        super().__init__("The answer was stopped, because nobody was reading it.")


def always() -> bool:
    return True


class Listeners:
    """The sessions and events whose answers somebody reads now."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self._closed: dict[str, float] = {}  # key -> when its last reader went
        self._lock = Lock()

    def arrive(self, key: str) -> None:
        with self._lock:
            self._open[key] += 1

    def go(self, key: str) -> bool:
        """Whether it was the last one that read it."""
        now = time.monotonic()
        with self._lock:
            self._open[key] -= 1
            last = self._open[key] < 1
            if last:
                del self._open[key]
            self._closed = {each: at for each, at in self._closed.items() if now - at < GRACE_SECONDS}
            self._closed[key] = now
        return last

    def heard(self, keys: frozenset[str], since: float) -> bool:
        """Whether one of the keys is read now, or was a moment ago, or its question is that new."""
        with self._lock:
            if any(key in self._open for key in keys):
                return True
            latest = max([since, *(self._closed.get(key, since) for key in keys)])
        return time.monotonic() - latest < GRACE_SECONDS


@dataclass(frozen=True)
class Caller:
    """`person` is a name or an address; "" is whoever calls from this process. `uploads` is where their files go."""

    person: str = ""
    listens: Callable[[], bool] = always
    listeners: Listeners = field(default_factory=Listeners)
    uploads: Uploads | None = None

    def hold(self, more: int) -> None:
        """Before so many bytes are written for them beside what they sent. Raises NoRoom."""
        if self.uploads:
            self.uploads.hold(more)

    def check(self) -> None:
        """Raises NobodyListens."""
        if not self.listens():
            raise NobodyListens


CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)  # of a request that is not Gradio's


def current_caller() -> Caller:
    """Who the running code answers."""
    request: Any = LocalContext.request.get(None)
    if request is None:
        return CALLER.get() or Caller()
    session = request.session_hash if isinstance(request, gr.Request) else None
    scope = getattr(request.request if isinstance(request, gr.Request) else request, "scope", {})
    caller: Caller = scope.get(SCOPE_KEY) or Caller()
    if not session or not caller.person:
        return caller
    keys = frozenset(filter(None, (session, LocalContext.event_id.get(None))))
    since, listeners = time.monotonic(), caller.listeners
    # behind a proxy that does not say who asks, and on the owner's own machine, a session is a person
    person = f"{caller.person} {session}" if caller.person == "loopback" else caller.person
    return replace(caller, person=person, listens=lambda: listeners.heard(keys, since))
