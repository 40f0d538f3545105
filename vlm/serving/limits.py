"""How much one person may ask for in a minute, or in some hours."""

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
    """At most so many `things` by one person in a minute, or in `hours`; what was not used for so long may be used at
    once."""

    def __init__(self, things: str, most: float, hours: int = 0) -> None:
        self.things, self.most, self.hours = things, most, hours
        self.seconds = hours * 3600 or 60
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
        """Take what was used already, and so without a refusal; below zero, give back what was not used."""
        with self._lock:
            self._bucket(person).left -= amount

    def _check(self, bucket: Bucket) -> None:
        if bucket.left < 1:
            within = f"in {self.hours} hours" if self.hours else "a minute"
            reason = f"One person can send {self.most:g} {self.things} {within} here."
            raise TryLater(reason, (1 - bucket.left) * self.seconds / self.most)

    def _bucket(self, person: str) -> Bucket:
        now = time.monotonic()
        if len(self._buckets) > 10_000:
            self._buckets = {
                name: each for name, each in self._buckets.items() if now - each.at < 10 * self.seconds
            }
        bucket = self._buckets.setdefault(person, Bucket(self.most, now))
        filled = bucket.left + (now - bucket.at) * self.most / self.seconds
        bucket.left, bucket.at = min(self.most, filled), now
        return bucket
