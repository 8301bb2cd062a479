"""Alternatives that take turns, so that all of them see the same machine."""

from collections.abc import Callable, Mapping
from typing import TypeVar

K = TypeVar("K")
T = TypeVar("T")


def in_turns(ways: Mapping[K, Callable[[], T]], rounds: int) -> dict[K, list[T]]:
    """Call every way once per round; each round begins with another one, so none always follows the same.

    Returns:
        What each way returned, round by round.
    """
    names = list(ways)
    results: dict[K, list[T]] = {name: [] for name in names}
    for number in range(rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            results[name].append(ways[name]())
    return results
