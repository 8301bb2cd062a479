"""Which positions count: those that show the picture and its region, each once."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flows.fastflow.counting import counted
from flows.fastflow.geometry import Geometry, Layout

STRIDES = (8, 16, 32)
INPUT = (128, 96)
SIDES = [(16, 12), (8, 6), (4, 3)]


def layout(geometry: Geometry, size: tuple[int, int]) -> Layout:
    return geometry.layout(size, INPUT, STRIDES)


def cells(where: Layout, side: tuple[int, int]) -> NDArray[np.int64]:
    """By formula, (T, H, W, 4): the first and last row and column of each position's cell in the map."""
    (height, width), (top, left) = where.tile, where.before
    found = np.empty((len(where), *side, 4), np.int64)
    for tile, (y, x) in enumerate(where.corners()):
        for row in range(side[0]):
            for column in range(side[1]):
                found[tile, row, column] = (
                    y + math.floor(row * height / side[0]) - top,
                    y + math.ceil((row + 1) * height / side[0]) - 1 - top,
                    x + math.floor(column * width / side[1]) - left,
                    x + math.ceil((column + 1) * width / side[1]) - 1 - left,
                )
    return found


def expected(where: Layout, side: tuple[int, int], region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether a cell has a pixel of the region, whatever tile the position is the own of."""
    found = np.zeros((len(where), *side), np.bool_)
    of_cells = cells(where, side)
    for index in np.ndindex(found.shape):
        top, bottom, left, right = of_cells[index]
        found[index] = region[max(0, top) : max(0, bottom + 1), max(0, left) : max(0, right + 1)].any()
    return found


def seen(where: Layout, side: tuple[int, int], which: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How often each pixel of the map lies in a cell that counts."""
    times = np.zeros(where.size, np.int64)
    for top, bottom, left, right in cells(where, side)[which]:
        times[max(0, top) : max(0, bottom + 1), max(0, left) : max(0, right + 1)] += 1
    return times


def test_all_positions_of_a_picture_that_fills_the_input_count() -> None:
    where = layout(Geometry(), (900, 700))
    assert counted(where, SIDES) is None
    assert counted(where, SIDES, np.ones(INPUT, np.bool_)) is None


@settings(max_examples=60, deadline=None)
@given(top=st.integers(0, 127), left=st.integers(0, 95), height=st.integers(1, 128), width=st.integers(1, 96))
def test_a_position_counts_that_shows_a_pixel_of_the_region(
    top: int, left: int, height: int, width: int
) -> None:
    where, region = layout(Geometry(), (128, 96)), np.zeros(INPUT, np.bool_)
    region[top : top + height, left : left + width] = True
    found = counted(where, SIDES, region)
    if region.all():
        assert found is None
        return
    assert found is not None
    for which, side in zip(found, SIDES, strict=True):
        np.testing.assert_array_equal(which, expected(where, side, region))
        assert which.any()


def test_maps_whose_sides_do_not_divide_the_input() -> None:
    region = np.zeros((100, 70), np.bool_)
    region[33, 40] = True
    where = Geometry().layout((100, 70), (100, 70), (14,))
    [which] = counted(where, [(7, 5)], region) or []
    assert np.argwhere(which[0]).tolist() == [[2, 2]]  # rows 28 to 42, columns 28 to 42
    [which] = counted(where, [(3, 3)], region) or []
    assert np.argwhere(which[0]).tolist() == [[0, 1], [1, 1]]  # row 33 is shared by both


@pytest.mark.parametrize("size", [(60, 96), (128, 20), (1, 96), (20, 40)])
def test_what_is_reflected_alone_does_not_count(size: tuple[int, int]) -> None:
    where = layout(Geometry(fit="pad"), size)
    found = counted(where, SIDES)
    assert found is not None
    everything = np.ones(where.size, np.bool_)
    for which, side in zip(found, SIDES, strict=True):
        np.testing.assert_array_equal(which, expected(where, side, everything))
        assert 0 < which.sum() < which.size
        assert (seen(where, side, which) == 1).all()


@pytest.mark.parametrize("size", [(300, 500), (129, 97), (128, 300), (40, 400), (1000, 96)])
@pytest.mark.parametrize("overlap", [0.25, 0.5])
@pytest.mark.parametrize("margin", [0, 12])
def test_of_tiles_every_place_counts_once(size: tuple[int, int], overlap: float, margin: int) -> None:
    where = layout(Geometry(fit="tile", overlap=overlap, margin=margin), size)
    assert len(where) > 1
    found = counted(where, SIDES)
    assert found is not None
    for which, side in zip(found, SIDES, strict=True):
        assert which.shape == (len(where), *side)
        assert (seen(where, side, which) == 1).all()


@pytest.mark.parametrize("overlap", [0.6, 0.75])
@pytest.mark.parametrize("size", [(64, 64), (100, 170), (65, 300)])
def test_no_place_is_left_out_where_cells_of_tiles_do_not_coincide(
    size: tuple[int, int], overlap: float
) -> None:
    """Tiles that overlap so far begin at no multiple of the coarsest stride."""
    where = Geometry(fit="tile", overlap=overlap).layout(size, (64, 64), STRIDES)
    sides = [(8, 8), (4, 4), (2, 2)]
    found = counted(where, sides) or [np.ones((1, *side), np.bool_) for side in sides]
    for which, side in zip(found, sides, strict=True):
        assert seen(where, side, which).min() >= 1


@settings(max_examples=60, deadline=None)
@given(
    geometry=st.sampled_from([
        Geometry(), Geometry(margin=8), Geometry(fit="pad"), Geometry(fit="tile"),
        Geometry(fit="tile", margin=12), Geometry(fit="tile", overlap=0.75),
    ]),
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_a_smaller_region_has_no_position_that_a_larger_one_has_not(
    geometry: Geometry, size: tuple[int, int], seed: int
) -> None:
    """So that a region can only lower a score; and every region has some of each scale."""
    where, generator = layout(geometry, size), np.random.default_rng(seed)

    def some() -> NDArray[np.bool_]:
        top, left = (int(generator.integers(side)) for side in where.size)
        region = np.zeros(where.size, np.bool_)
        height, width = (int(side) for side in generator.integers(1, 200, 2))
        region[top : top + height, left : left + width] = True
        return region

    smaller = some()
    every = [np.ones((len(where), *side), np.bool_) for side in SIDES]
    whole = counted(where, SIDES) or every
    of_smaller, of_larger = (counted(where, SIDES, region) or whole for region in (smaller, smaller | some()))
    for one, other, all_of_it in zip(of_smaller, of_larger, whole, strict=True):
        assert one.any()
        assert not (one & ~other).any()
        assert not (other & ~all_of_it).any()


def test_where_tiles_overlap_a_position_is_the_tiles_that_sees_more_around_it() -> None:
    where = layout(Geometry(fit="tile", overlap=0.5), (128, 480))
    found = counted(where, SIDES)
    assert found is not None
    places = [left + (np.arange(12) + 0.5) * 8 for left in where.lefts]
    for (here, one), (there, other) in pairwise(zip(places, found[0], strict=True)):
        border = (here[0] + there[-1]) / 2
        assert (here[one.any(0)] <= border).all()
        assert (there[other.any(0)] >= border).all()


def test_a_region_of_tiles() -> None:
    where = layout(Geometry(fit="tile"), (300, 500))
    region = np.zeros(where.size, np.bool_)
    region[100:140, 200:330] = True
    found = counted(where, SIDES, region)
    everywhere = counted(where, SIDES)
    assert found is not None
    assert everywhere is not None
    for which, every, side in zip(found, everywhere, SIDES, strict=True):
        np.testing.assert_array_equal(which, expected(where, side, region) & every)
        assert which.any()
