"""Regions of interest, and regions of anomalous pixels: that both mean the same pixels of an image."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from flows.fastflow.imaging.anomaly_regions import AnomalyRegion, find_regions
from flows.fastflow.imaging.region_masks import polygon_mask

Map = NDArray[np.float32]


def hot(size: tuple[int, int], *boxes: tuple[int, int, int, int], peak: float = 5.0) -> Map:
    """A map that is 0 but in boxes (x, y, width, height)."""
    score_map = np.zeros(size, np.float32)
    for x, y, width, height in boxes:
        score_map[y : y + height, x : x + width] = peak
    return score_map


def blobs(seed: int, smoothness: float = 2.0, size: tuple[int, int] = (40, 60)) -> Map:
    noise = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), smoothness)
    return np.asarray(smooth / smooth.std(), np.float32)


def area(contour: list[tuple[int, int]]) -> float:
    return float(cv2.contourArea(np.array(contour, np.int32)))


class TestMask:
    def test_pixels_whose_centres_are_inside_belong_to_it(self) -> None:
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
    def test_it_is_the_even_odd_rule(self, points: list[tuple[int, int]], size: tuple[int, int]) -> None:
        """Against a count of the edges that a ray crosses, pixel by pixel; no centre lies on an edge."""
        polygon = [(x + 1 / math.e, y + 1 / math.pi) for x, y in points]
        edges = list(zip(polygon, polygon[1:] + polygon[:1], strict=True))
        expected = np.zeros(size, bool)
        for i, j in np.ndindex(size):
            x, y = (j + 0.5) * 61 / size[1], (i + 0.5) * 41 / size[0]
            crossed = [
                (y0 > y) != (y1 > y) and x < (x1 - x0) * (y - y0) / (y1 - y0) + x0
                for (x0, y0), (x1, y1) in edges
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
    def test_region_without_a_pixel_is_rejected(self, polygon: list[tuple[float, float]]) -> None:
        """It would pass every part."""
        with pytest.raises(ValueError, match=r"no pixel of the model's input \(10 high, 20 wide\)") as caught:
            polygon_mask([polygon], (40, 40), (10, 20))
        assert "an image 40 high and 40 wide" in str(caught.value)

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e6 + 1, -1e300])
    @pytest.mark.parametrize("axis", [0, 1])
    def test_coordinate_that_is_none_is_refused_and_named(self, bad: float, axis: int) -> None:
        point = (bad, 1.0) if axis == 0 else (1.0, bad)
        with pytest.raises(ValueError, match="polygon 1 has the point") as caught:
            polygon_mask([[(0.0, 0.0), (9.0, 0.0), point]], (40, 40), (10, 10))
        assert repr(bad) in str(caught.value)


class TestFind:
    def test_box_comes_back_in_pixels_of_the_image(self) -> None:
        [region] = find_regions(hot((64, 64), (10, 20, 5, 8)), 1.0, (640, 1280))
        assert region == AnomalyRegion(
            bbox=(200, 200, 100, 80), contour=region.contour, area_px=8000, area_fraction=40 / 4096, peak=5.0
        )
        assert set(region.contour) == {(200, 200), (300, 200), (300, 280), (200, 280)}
        assert len(region.contour) == 4

    def test_map_below_the_threshold_and_one_at_it_have_none(self) -> None:
        assert find_regions(hot((64, 64)), 1.0, (64, 64)) == []
        assert find_regions(hot((64, 64), (3, 3, 9, 9), peak=1.0), 1.0, (64, 64)) == []
        assert (
            len(find_regions(hot((64, 64), (3, 3, 9, 9), peak=np.nextafter(np.float32(1), 2)), 1.0, (64, 64)))
            == 1
        )

    def test_the_highest_peak_comes_first(self) -> None:
        score_map = hot((64, 64), (2, 2, 4, 4), peak=2.0) + hot((64, 64), (20, 20, 30, 30), peak=3.0)
        score_map[55, 5:9] = 7.0
        score_map[3, 3] = 4.0
        assert [r.peak for r in find_regions(score_map, 1.0, (64, 64))] == [7.0, 4.0, 3.0]

    def test_pixels_that_touch_at_a_corner_belong_together(self) -> None:
        [region] = find_regions(hot((20, 20), (2, 2, 3, 3), (5, 5, 3, 3)), 1.0, (20, 20))
        assert region.bbox == (2, 2, 6, 6)
        assert region.area_px == 18

    def test_hole_is_left_out_of_the_area_and_not_of_the_contour(self) -> None:
        score_map = hot((30, 30), (5, 5, 20, 20))
        score_map[10:20, 10:20] = 0
        [region] = find_regions(score_map, 1.0, (30, 30))
        assert region.area_px == 300
        assert area(region.contour) == 400

    @pytest.mark.parametrize("seed", range(10))
    @pytest.mark.parametrize("image", [(80, 120), (397, 801)])
    def test_contour_as_mask_covers_its_region(self, seed: int, image: tuple[int, int]) -> None:
        score_map = blobs(seed, 5.0, (80, 120))
        found = find_regions(score_map, 0.8, image)
        assert found
        differ = total = 0
        _, labels = cv2.connectedComponents((score_map > 0.8).astype(np.uint8), connectivity=8)
        for region in found:
            at = np.argwhere((score_map == np.float32(region.peak)) & (score_map > 0.8))
            own = labels == labels[tuple(at[0])]
            filled, _ = cv2.findContours(own.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            solid = cv2.drawContours(np.zeros(own.shape, np.uint8), filled, -1, 1, -1).astype(bool)
            back = polygon_mask([region.contour], image, score_map.shape)
            # Simplifying moves an outline by less than a pixel of the map.
            wide = cv2.dilate(solid.astype(np.uint8), np.ones((3, 3))).astype(bool)
            narrow = cv2.erode(solid.astype(np.uint8), np.ones((3, 3)), borderValue=0).astype(bool)
            assert not (back & ~wide).any()
            assert not (narrow & ~back).any()
            differ += int((back != solid).sum())
            total += int(solid.sum())
        assert differ < 0.1 * total

    @pytest.mark.parametrize("seed", range(5))
    def test_contours_and_regions_are_few_however_rough_the_map(self, seed: int) -> None:
        noise = np.random.default_rng(seed).uniform(0, 1, (256, 256)).astype(np.float32)
        for threshold in (0.3, 0.5, 0.6, 0.8):
            found = find_regions(noise, threshold, (3000, 2000))
            assert len(found) <= 32
            assert all(3 <= len(r.contour) <= 200 for r in found)
        assert len(find_regions(blobs(seed, 1.0, (256, 256)), 1.0, (256, 256))) == 32

    @pytest.mark.parametrize(("side", "left"), [(6, 0), (7, 1)])
    def test_specks_are_left_out(self, side: int, left: int) -> None:
        """Of a map of 256 x 256 a ten thousandth is 6.6 pixels."""
        assert len(find_regions(hot((256, 256), (10, 10, side, 1)), 1.0, (256, 256))) == left

    def test_what_is_no_speck_in_a_tile_is_none_in_a_large_image(self) -> None:
        large = hot((1024, 1024), (10, 10, 7, 1))
        assert find_regions(large, 1.0, (1024, 1024)) == []
        assert len(find_regions(large, 1.0, (1024, 1024), 256 * 256)) == 1

    @pytest.mark.parametrize("image", [(32, 32), (200, 200), (900, 900)])
    def test_scratch_has_an_outline_that_is_a_region_of_interest(self, image: tuple[int, int]) -> None:
        """As thin as a pixel of the map, at any angle, straight or bent."""
        ends = np.random.default_rng(2).integers(0, 256, (60, 3, 2)).tolist()
        shares = []
        for first, bend, last in ends:
            score_map = np.zeros((256, 256), np.float32)
            cv2.line(score_map, first, bend, 5.0, 1)
            cv2.line(score_map, bend, last, 5.0, 1)
            for region in find_regions(score_map, 1.0, image):
                back = polygon_mask([region.contour], image, score_map.shape)
                shares.append(np.count_nonzero(back & (score_map > 1)) / np.count_nonzero(score_map > 1))
        assert len(shares) > 50
        if image[0] > 256:
            assert min(shares) > 0.9

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_what_is_not_finite_is_rejected(self, bad: float) -> None:
        score_map = hot((8, 8), (2, 2, 2, 2))
        with pytest.raises(ValueError, match="must be finite"):
            find_regions(score_map, bad, (8, 8))
        score_map[7, 7] = bad
        with pytest.raises(ValueError, match="must be finite"):
            find_regions(score_map, 1.0, (8, 8))
