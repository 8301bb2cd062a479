"""Masks of polygons: the pixels whose centres lie inside a region of interest."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.fastflow.imaging.region_masks import polygon_mask


def test_pixels_whose_centres_are_inside_belong_to_it() -> None:
    found = polygon_mask([[(2, 1), (5, 1), (5, 3), (2, 3)]], (6, 8), (6, 8))
    expected = np.zeros((6, 8), bool)
    expected[1:3, 2:5] = True
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.bool_
    half = polygon_mask([[(2.4, 0), (4.6, 0), (4.6, 6), (2.4, 6)]], (6, 8), (6, 8))
    assert half[0].tolist() == [False, False, True, True, True, False, False, False]


@given(
    points=st.lists(st.tuples(st.integers(-20, 80), st.integers(-20, 60)), min_size=3, max_size=8),
    size=st.sampled_from([(41, 61), (13, 97)]),
)
def test_it_is_the_even_odd_rule(points: list[tuple[int, int]], size: tuple[int, int]) -> None:
    """Against a count of the edges that a ray crosses, pixel by pixel; no centre lies on an edge."""
    polygon = [(x + 1 / math.e, y + 1 / math.pi) for x, y in points]
    edges = list(zip(polygon, polygon[1:] + polygon[:1], strict=True))
    expected = np.zeros(size, bool)
    for i, j in np.ndindex(size):
        x, y = (j + 0.5) * 61 / size[1], (i + 0.5) * 41 / size[0]
        crossed = [
            (y0 > y) != (y1 > y) and x < (x1 - x0) * (y - y0) / (y1 - y0) + x0 for (x0, y0), (x1, y1) in edges
        ]
        expected[i, j] = sum(crossed) % 2
    if expected.any():
        np.testing.assert_array_equal(polygon_mask([polygon], (41, 61), size), expected)
    else:
        with pytest.raises(ValueError, match="no pixel of the model's input"):
            polygon_mask([polygon], (41, 61), size)


@pytest.mark.parametrize(
    "polygon",
    [
        [(50.0, 50.0), (60.0, 50.0), (60.0, 60.0)],  # outside
        [(-9.0, -9.0), (-1.0, -9.0), (-1.0, -1.0)],
        [(1.0, 1.0), (1.0, 1.0), (1.0, 1.0)],  # no area
        [(1.0, 1.0), (20.0, 20.0), (30.0, 30.0)],
        [(4.1, 4.1), (4.4, 4.1), (4.4, 4.4)],  # between the centres
    ],
)
def test_region_without_a_pixel_is_rejected(polygon: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match=r"no pixel of the model's input \(10 high, 20 wide\)") as caught:
        polygon_mask([polygon], (40, 40), (10, 20))
    assert "an image 40 high and 40 wide" in str(caught.value)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e6 + 1, -1e300])
@pytest.mark.parametrize("axis", [0, 1])
def test_coordinate_that_is_none_is_refused_and_named(bad: float, axis: int) -> None:
    point = (bad, 1.0) if axis == 0 else (1.0, bad)
    with pytest.raises(ValueError, match="polygon 1 has the point") as caught:
        polygon_mask([[(0.0, 0.0), (9.0, 0.0), point]], (40, 40), (10, 10))
    assert repr(bad) in str(caught.value)
