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


def centres(where: Layout, side: tuple[int, int]) -> NDArray[np.float64]:
    """(T, H, W, 2): row and column of each position's centre in the map."""
    found = np.empty((len(where), *side, 2))
    steps = where.tile[0] / side[0], where.tile[1] / side[1]
    for tile, (y, x) in enumerate(where.corners()):
        found[tile, ..., 0] = (y - where.before[0] + (np.arange(side[0]) + 0.5) * steps[0])[:, None]
        found[tile, ..., 1] = x - where.before[1] + (np.arange(side[1]) + 0.5) * steps[1]
    return found


def expected(where: Layout, side: tuple[int, int], region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """By formula, whatever tile they are the own of: by centres, or where there are none by cells."""
    height, width = region.shape
    by_centre, by_cell = np.zeros((2, len(where), *side), np.bool_)
    at, of_cells = np.floor(centres(where, side)).astype(int), cells(where, side)
    for index in np.ndindex(by_centre.shape):
        (row, column), (top, bottom, left, right) = at[index], of_cells[index]
        by_centre[index] = 0 <= row < height and 0 <= column < width and region[row, column]
        by_cell[index] = region[max(0, top) : max(0, bottom + 1), max(0, left) : max(0, right + 1)].any()
    return by_centre if by_centre.any() else by_cell


def test_all_positions_of_a_picture_that_fills_the_input_count() -> None:
    where = layout(Geometry(), (900, 700))
    assert counted(where, SIDES) is None
    assert counted(where, SIDES, np.ones(INPUT, np.bool_)) is None


@settings(max_examples=60, deadline=None)
@given(top=st.integers(0, 127), left=st.integers(0, 95), height=st.integers(1, 128), width=st.integers(1, 96))
def test_a_position_counts_whose_centre_the_region_has_or_else_any_of_its_cell(
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
def test_what_is_reflected_does_not_count(size: tuple[int, int]) -> None:
    where = layout(Geometry(fit="pad"), size)
    found = counted(where, SIDES)
    assert found is not None
    everything = np.ones(where.size, np.bool_)
    for which, side in zip(found, SIDES, strict=True):
        np.testing.assert_array_equal(which, expected(where, side, everything))
        assert 0 < which.sum() < which.size


@pytest.mark.parametrize("size", [(300, 500), (129, 97), (128, 300), (40, 400), (1000, 96)])
@pytest.mark.parametrize("overlap", [0.25, 0.5])
def test_of_tiles_every_place_counts_once(size: tuple[int, int], overlap: float) -> None:
    where = layout(Geometry(fit="tile", overlap=overlap), size)
    assert len(where) > 1
    found = counted(where, SIDES)
    assert found is not None
    for which, side in zip(found, SIDES, strict=True):
        assert which.shape == (len(where), *side)
        # By the place of their centres; of those in the picture all are there, and each once.
        everything = np.ones(where.size, np.bool_)
        there = [tuple(at) for at in centres(where, side)[expected(where, side, everything)]]
        own = [tuple(at) for at in centres(where, side)[which]]
        assert sorted(own) == sorted(set(there))


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
