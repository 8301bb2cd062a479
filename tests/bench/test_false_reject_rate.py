"""The benchmark of the promise fails where it is broken, and not by chance."""

import pytest

from bench.false_reject_rate import is_broken


@pytest.mark.parametrize(
    ("astray", "seeds", "broken"),
    [
        (0, 10, False),
        (2, 10, False),
        (3, 10, True),
        (10, 10, True),
        (1, 1, False),
        (2, 2, True),
        (6, 100, False),
    ],
)
def test_a_few_seeds_go_astray_by_chance(astray: int, seeds: int, broken: bool) -> None:
    assert is_broken(astray, seeds) is broken
