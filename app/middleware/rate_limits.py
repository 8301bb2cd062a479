"""How often a key may ask: token buckets."""

import time
from collections.abc import Callable


class TokenBuckets:
    """A token bucket for each name: so many requests a minute on average, and at once after a pause.

    Used from the event loop's thread alone, so it needs no lock.

    Args:
        clock: seconds from any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens, and when there were so many

    def take(self, name: str, per_minute: int) -> float:
        """Take a token from a name's bucket, which holds `per_minute` and gets as many in a minute.

        Returns:
            0 if there was one; else the seconds until there is.
        """
        now, rate = self._clock(), per_minute / 60
        tokens, filled = self._buckets.get(name, (per_minute, now))
        tokens = min(per_minute, tokens + rate * (now - filled))
        wait = max(0.0, (1 - tokens) / rate)
        self._buckets[name] = (tokens if wait else tokens - 1, now)
        return wait
