"""The aligner of the page and its endpoints: one for all, loaded when it is first needed, not at the start."""

from collections.abc import Callable
from threading import Lock

from vlm.chat.search import Searcher, load_aligner


def on_cpu() -> Searcher:
    """The GPU, where there is one, belongs to the language model; and ZeroGPU lends it for answers only."""
    return load_aligner(device="cpu")


class SharedSearcher:
    def __init__(self, load: Callable[[], Searcher] = on_cpu) -> None:
        self._load, self._lock = load, Lock()
        self._searcher: Searcher | None = None

    def get(self) -> Searcher:
        """UserError where its weights are missing; the next call tries again."""
        with self._lock:
            if self._searcher is None:
                self._searcher = self._load()
            return self._searcher
