"""The parts of an answer, handed from the thread that makes it to the one that waits for it."""

import queue
from collections.abc import Generator
from typing import Any

PATIENCE = 0.25  # seconds without anything, after which whoever waits may stop
ENDED = object()


def parts_of(items: "queue.SimpleQueue[Any]") -> Generator[Any, None, None]:
    """The parts of the answer until ENDED, None where nothing has come for a while. Raises an error that comes."""
    while True:
        try:
            item = items.get(timeout=PATIENCE)
        except queue.Empty:
            item = None
        if item is ENDED:
            return
        if isinstance(item, BaseException):
            raise item
        yield item
