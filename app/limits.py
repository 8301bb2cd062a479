"""How often a key may ask: token buckets."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class _Bucket:
    tokens: float
    filled: float  # when it was last filled up, by the clock


class TokenBuckets:
    """A token bucket for each name: so many requests a minute on average, and at once after a pause.

    Used from the event loop's thread alone, so it needs no lock.

    Args:
        clock: seconds from any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, name: str, per_minute: int) -> float:
        """Take a token from a name's bucket, if there is one.

        Args:
            name: whose bucket.
            per_minute: tokens that it holds, and that flow into it in a minute.

        Returns:
            0 if there was one; else the seconds until there is.
        """
        now = self._clock()
        bucket = self._buckets.setdefault(name, _Bucket(per_minute, now))
        rate = per_minute / 60
        bucket.tokens = min(float(per_minute), bucket.tokens + rate * (now - bucket.filled))
        bucket.filled = now
        if bucket.tokens < 1:
            return (1 - bucket.tokens) / rate
        bucket.tokens -= 1
        return 0.0
