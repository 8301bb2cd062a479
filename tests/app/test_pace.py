from collections.abc import Callable
from itertools import repeat

import pytest

from app.pace import Pace


def sizes(seconds: Callable[[int], float], batches: int = 60) -> list[int]:
    """What batches hold that are each as large as they may be."""
    pace, found = Pace(16), []
    for now in range(batches):
        found.append(pace.places)
        pace.add(found[-1], seconds(found[-1]), now)
    return found


@pytest.mark.parametrize(
    ("seconds", "first", "later"),
    [
        (lambda n: 0.01 * n, [1, 16], {16}),  # a quick one needs no limit
        (lambda n: 0.1 * n, [1, 2, 3, 2], {2}),
        (lambda n: 2.0 * n, [1, 2, 1], {1}),
        # However long the smallest takes, more cost little.
        (lambda n: 0.13 + 0.01 * n, [1, 2, 3], {11, 12}),
        (lambda n: 0.2 + 0.003 * n, [1, 2, 3], {16}),
        (lambda n: 0.3 + 0.003 * n, [1, 2, 3], {16}),
        (lambda n: 0.24 + 0.02 * n, [1, 2, 3], {7}),
    ],
)
def test_batches_take_a_quarter_of_a_second_or_little_more_than_one_image(
    seconds: Callable[[int], float], first: list[int], later: set[int]
) -> None:
    found = sizes(seconds)
    assert found[: len(first)] == first
    settled = found[20:]
    # One more is tried now and then: it may have become quicker.
    assert sum(size in later for size in settled) >= 0.9 * len(settled)
    assert max(settled) <= max(later) + 1


def test_a_single_slow_batch_is_overcome() -> None:
    took = iter([0.01, 0.16, 3.0])
    assert sizes(lambda n: next(took, 0.01 * n))[:5] == [1, 16, 16, 1, 16]


def test_one_that_becomes_slower_gets_smaller_batches_and_larger_ones_again() -> None:
    took = iter([*repeat(0.01, 10), *repeat(0.2, 10)])
    found = sizes(lambda n: next(took, 0.01) * n)
    assert found[9] == 16
    assert set(found[12:20]) <= {1, 2}
    assert found[-1] == 16


def test_the_pace_is_that_of_most_batches() -> None:
    pace = Pace(16)
    for places, seconds in ((1, 2.0), (2, 0.2), (4, 0.4), (8, 8.0)):
        pace.add(places, seconds, 7.5)
    assert pace.seconds == pytest.approx(0.1)
    assert pace.ended == 7.5


def test_a_place_counts_what_it_took_but_for_one_that_hangs() -> None:
    pace = Pace(16)
    counts = [pace.add(places, seconds, 0) for places, seconds in ((2, 2.0), (2, 0.2), (1, 0.15), (1, 60.0))]
    assert counts == pytest.approx([1.0, 0.1, 0.15, 0.45])
