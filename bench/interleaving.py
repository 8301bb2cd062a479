"""Interleaved measurements: all alternatives see the same state of the machine."""

from collections.abc import Callable, Mapping
from typing import TypeVar

K = TypeVar("K")
T = TypeVar("T")


def interleave(functions: Mapping[K, Callable[[], T]], rounds: int) -> dict[K, list[T]]:
    """Call every function once per round, in an order that rotates by one each round.

    Returns:
        The results of each function, round by round.
    """
    names = list(functions)
    results: dict[K, list[T]] = {name: [] for name in names}
    for number in range(rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            results[name].append(functions[name]())
    return results
