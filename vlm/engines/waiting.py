"""What whoever waits for an answer gets of it, from the thread that makes it."""

import queue
from typing import Any

PATIENCE = 0.25  # seconds without anything, after which whoever waits may stop
ENDED = object()


def next_of(items: "queue.SimpleQueue[Any]") -> Any:
    """A part of the answer, an error or ENDED; None where nothing has come for a while."""
    try:
        return items.get(timeout=PATIENCE)
    except queue.Empty:
        return None
