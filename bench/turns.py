"""Two ways to do the same, timed in turns."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

# Milliseconds of each round, of one way and of the other.
Times: TypeAlias = tuple[list[float], list[float]]


def in_turns(ways: tuple[Callable[[], object], Callable[[], object]], rounds: int, share: int = 1) -> Times:
    """Time both in each round, after a call that does not count.

    Args:
        ways: both.
        rounds: how many.
        share: what a time is divided by, such as the pictures of a batch.
    """
    times: Times = ([], [])
    for way in ways:
        way()
    for turn in range(rounds):
        # Who begins changes, for who is second finds the other's data in the caches.
        for i in (0, 1) if turn % 2 else (1, 0):
            start = time.perf_counter()
            ways[i]()
            times[i].append(1000 * (time.perf_counter() - start) / share)
    return times


def cells(times: Sequence[Times], digits: int) -> list[str]:
    """Of a table: the medians of both, and the median of the ratios of rounds."""
    found = []
    for one, other in times:
        medians = f"{statistics.median(one):.{digits}f} / {statistics.median(other):.{digits}f}"
        ratio = statistics.median(a / b for a, b in zip(one, other, strict=True))
        found += [medians, f"{ratio:.2f}"]
    return found
