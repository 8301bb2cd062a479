"""Rate limits by token buckets."""

import time
from collections.abc import Callable


class TokenBuckets:
    """One token bucket per name: a limit of requests a minute, all at once after a pause.

    Used only in the event loop's thread, so it needs no lock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens, and the time of that count

    def take(self, name: str, per_minute: int) -> float:
        """Take a token from a name's bucket, which holds `per_minute` and refills in a minute.

        Returns:
            0 if there was a token; otherwise the seconds until there is one.
        """
        now, rate = self._clock(), per_minute / 60
        tokens, filled = self._buckets.get(name, (per_minute, now))
        tokens = min(per_minute, tokens + rate * (now - filled))
        wait = max(0.0, (1 - tokens) / rate)
        self._buckets[name] = (tokens if wait else tokens - 1, now)
        return wait
