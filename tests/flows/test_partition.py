"""Channel halves and checkerboards."""

import pytest
import torch

from flows import Checkerboard, Halves


@pytest.mark.parametrize(("channels", "first"), [(2, 1), (3, 2), (4, 2), (5, 3), (112, 56)])
def test_the_first_half_is_the_larger_one(channels: int, first: int) -> None:
    halves, swapped = Halves(channels), Halves(channels, swapped=True)
    assert (halves.conditioning, halves.transformed) == (first, channels - first)
    assert (swapped.conditioning, swapped.transformed) == (channels - first, first)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 3, 4), (2, 4), (0, 5, 1, 1)])
def test_join_undoes_split(shape: tuple[int, ...], swapped: bool) -> None:
    x = torch.randn(shape)
    halves = Halves(shape[1], swapped=swapped)
    conditioning, transformed = halves.split(x)
    assert conditioning.shape[1] == halves.conditioning
    assert transformed.shape[1] == halves.transformed
    assert torch.equal(halves.join(conditioning, transformed), x)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("size", [(4, 4), (3, 5), (1, 1), (1, 6)])
def test_a_checkerboard_joins_what_it_split(size: tuple[int, int], swapped: bool) -> None:
    x = torch.randn(2, 3, *size)
    board = Checkerboard(3, swapped=swapped)
    conditioning, transformed = board.split(x)
    assert torch.equal(board.join(conditioning, transformed), x)
    assert torch.equal(board.join(conditioning, -x), torch.where(conditioning != 0, x, -x))
