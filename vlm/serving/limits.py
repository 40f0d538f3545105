"""How much one person may ask for in a minute."""

import math
import time
from dataclasses import dataclass
from threading import Lock

from vlm.errors import UserError


class NotNow(UserError):
    """Refused through no fault of who asks: the server stops, or changes its model."""


class TryLater(UserError):
    """Refused for now. `seconds` is when to come back."""

    def __init__(self, reason: str, seconds: float) -> None:
        self.seconds = max(1, math.ceil(seconds))
        super().__init__(f"{reason} Please try again in {duration(self.seconds)}.")


def duration(seconds: float) -> str:
    """A length of time for people: seconds up to a minute and a half, then minutes."""
    whole = max(1, math.ceil(seconds))
    if whole <= 90:
        return f"{whole} second{'s' if whole > 1 else ''}"
    return f"{math.ceil(whole / 60)} minutes"


@dataclass
class Bucket:
    """What a person has left; it refills evenly. More than that may be taken at once, and is then waited for."""

    left: float
    at: float


class Limit:
    """At most `a_minute` of `things` by one person; what was not used for a minute may be used at once."""

    def __init__(self, things: str, a_minute: float) -> None:
        self.things, self.a_minute = things, a_minute
        self._buckets: dict[str, Bucket] = {}
        self._lock = Lock()

    def check(self, person: str) -> None:
        """Raises TryLater where nothing is left."""
        with self._lock:
            self._check(self._bucket(person))

    def take(self, person: str, amount: float = 1) -> None:
        """Raises TryLater where nothing is left."""
        with self._lock:
            bucket = self._bucket(person)
            self._check(bucket)
            bucket.left -= amount

    def charge(self, person: str, amount: float) -> None:
        """Take what was used already, and so without a refusal."""
        with self._lock:
            self._bucket(person).left -= amount

    def _check(self, bucket: Bucket) -> None:
        if bucket.left < 1:
            reason = f"One person can send {self.a_minute:g} {self.things} a minute here."
            raise TryLater(reason, (1 - bucket.left) * 60 / self.a_minute)

    def _bucket(self, person: str) -> Bucket:
        now = time.monotonic()
        if len(self._buckets) > 10_000:
            self._buckets = {name: each for name, each in self._buckets.items() if now - each.at < 600}
        bucket = self._buckets.setdefault(person, Bucket(self.a_minute, now))
        filled = bucket.left + (now - bucket.at) * self.a_minute / 60
        bucket.left, bucket.at = min(self.a_minute, filled), now
        return bucket
