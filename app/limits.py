"""How often somebody may ask: token buckets, bounded in memory."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MOST_ADDRESSES: Final = 4096  # with a bucket at a time, where buckets are by address


@dataclass
class _Bucket:
    tokens: float
    filled: float  # when it was last filled up, by the clock


class TokenBuckets:
    """A token bucket for each name: so many requests a minute on average, and at once after a pause.

    Used from the event loop's thread alone, so it needs no lock.

    Args:
        most: buckets that are kept; beyond, the one unused for longest is forgotten.
        clock: seconds from any beginning.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, name: str, per_minute: int) -> float:
        """Take a token from a name's bucket, if there is one.

        Args:
            name: whose bucket.
            per_minute: tokens that it holds, and that flow into it in a minute.

        Returns:
            0 if there was one; else the seconds until there is.
        """
        now = self._clock()
        bucket = self._buckets.pop(name, None) or _Bucket(per_minute, now)
        rate = per_minute / 60
        bucket.tokens = min(float(per_minute), bucket.tokens + rate * max(0.0, now - bucket.filled))
        bucket.filled = now
        self._buckets[name] = bucket
        if len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        if bucket.tokens < 1:
            return (1 - bucket.tokens) / rate
        bucket.tokens -= 1
        return 0.0
