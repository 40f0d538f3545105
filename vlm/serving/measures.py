"""What is counted while questions are answered, as Prometheus reads it. Nothing of what people say is kept."""

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

from vlm.errors import UserError
from vlm.serving.callers import NobodyListens

logger = logging.getLogger(__name__)


@dataclass
class Measured:
    """One question under way."""

    tokens: int = 0


class Measures:
    def __init__(self) -> None:
        self._lock = Lock()
        self._questions: Counter[tuple[str, str]] = Counter()  # (route, how it ended)
        self._seconds: Counter[str] = Counter()  # type: ignore[assignment]
        self._tokens = 0

    @contextmanager
    def question(self, route: str) -> Iterator[Measured]:
        """Counts what happens within. A question that is closed before its end was stopped, also by who left."""
        measured, start, ended = Measured(), time.monotonic(), "failed"
        try:
            yield measured
            ended = "answered"
        except (GeneratorExit, NobodyListens):
            ended = "stopped"
            raise
        except UserError:
            ended = "refused"
            raise
        finally:
            seconds = time.monotonic() - start
            with self._lock:
                self._questions[route, ended] += 1
                self._seconds[route] += seconds  # type: ignore[assignment]
                self._tokens += measured.tokens
            logger.info("%s question %s: %.1f s, %d tokens", route, ended, seconds, measured.tokens)

    def exposition(self, gauges: dict[str, float]) -> str:
        """The counts, and the gauges given, in Prometheus' text format."""
        with self._lock:
            questions, seconds, tokens = dict(self._questions), dict(self._seconds), self._tokens
        lines = ["# TYPE vlm_questions_total counter"]
        lines += [
            f'vlm_questions_total{{route="{route}",ended="{ended}"}} {count}'
            for (route, ended), count in sorted(questions.items())
        ]
        lines.append("# TYPE vlm_question_seconds_total counter")
        lines += [
            f'vlm_question_seconds_total{{route="{each}"}} {seconds[each]:.3f}' for each in sorted(seconds)
        ]
        lines += ["# TYPE vlm_tokens_total counter", f"vlm_tokens_total {tokens}"]
        for name, value in gauges.items():
            lines += [f"# TYPE {name} gauge", f"{name} {value:g}"]
        return "\n".join(lines) + "\n"
