"""Channel halves and checkerboards."""

import pytest

from flows import Halves


@pytest.mark.parametrize(("channels", "first"), [(2, 1), (3, 2), (4, 2), (5, 3), (112, 56)])
def test_first_half_is_the_larger_one(channels: int, first: int) -> None:
    halves, swapped = Halves(channels), Halves(channels, swapped=True)
    assert (halves.conditioning, halves.transformed) == (first, channels - first)
    assert (swapped.conditioning, swapped.transformed) == (channels - first, first)
