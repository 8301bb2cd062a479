"""Regions of anomalous pixels, and their contours as masks of the same pixels."""

import math

import cv2
import numpy as np
import pytest
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


def test_box_comes_back_in_pixels_of_the_image() -> None:
    [region] = find_regions(hot((64, 64), (10, 20, 5, 8)), 1.0, (640, 1280))
    assert region == AnomalyRegion(
        bbox=(200, 200, 100, 80), contour=region.contour, area_px=8000, area_fraction=40 / 4096, peak=5.0
    )
    assert set(region.contour) == {(200, 200), (300, 200), (300, 280), (200, 280)}
    assert len(region.contour) == 4


def test_map_below_the_threshold_and_one_at_it_have_none() -> None:
    assert find_regions(hot((64, 64)), 1.0, (64, 64)) == []
    assert find_regions(hot((64, 64), (3, 3, 9, 9), peak=1.0), 1.0, (64, 64)) == []
    assert (
        len(find_regions(hot((64, 64), (3, 3, 9, 9), peak=np.nextafter(np.float32(1), 2)), 1.0, (64, 64)))
        == 1
    )


def test_the_highest_peak_comes_first() -> None:
    score_map = hot((64, 64), (2, 2, 4, 4), peak=2.0) + hot((64, 64), (20, 20, 30, 30), peak=3.0)
    score_map[55, 5:9] = 7.0
    score_map[3, 3] = 4.0
    assert [r.peak for r in find_regions(score_map, 1.0, (64, 64))] == [7.0, 4.0, 3.0]


def test_pixels_that_touch_at_a_corner_belong_together() -> None:
    [region] = find_regions(hot((20, 20), (2, 2, 3, 3), (5, 5, 3, 3)), 1.0, (20, 20))
    assert region.bbox == (2, 2, 6, 6)
    assert region.area_px == 18


def test_hole_is_left_out_of_the_area_and_not_of_the_contour() -> None:
    score_map = hot((30, 30), (5, 5, 20, 20))
    score_map[10:20, 10:20] = 0
    [region] = find_regions(score_map, 1.0, (30, 30))
    assert region.area_px == 300
    assert area(region.contour) == 400


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("image", [(80, 120), (397, 801)])
def test_contour_as_mask_covers_its_region(seed: int, image: tuple[int, int]) -> None:
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
def test_contours_and_regions_are_few_however_rough_the_map(seed: int) -> None:
    noise = np.random.default_rng(seed).uniform(0, 1, (256, 256)).astype(np.float32)
    for threshold in (0.3, 0.5, 0.6, 0.8):
        found = find_regions(noise, threshold, (3000, 2000))
        assert len(found) <= 32
        assert all(3 <= len(r.contour) <= 200 for r in found)
    assert len(find_regions(blobs(seed, 1.0, (256, 256)), 1.0, (256, 256))) == 32


@pytest.mark.parametrize(("side", "left"), [(6, 0), (7, 1)])
def test_specks_are_left_out(side: int, left: int) -> None:
    """Of a map of 256 x 256 a ten thousandth is 6.6 pixels."""
    assert len(find_regions(hot((256, 256), (10, 10, side, 1)), 1.0, (256, 256))) == left


def test_what_is_no_speck_in_a_tile_is_none_in_a_large_image() -> None:
    large = hot((1024, 1024), (10, 10, 7, 1))
    assert find_regions(large, 1.0, (1024, 1024)) == []
    assert len(find_regions(large, 1.0, (1024, 1024), 256 * 256)) == 1


@pytest.mark.parametrize("image", [(32, 32), (200, 200), (900, 900)])
def test_scratch_has_an_outline_that_is_a_region_of_interest(image: tuple[int, int]) -> None:
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
def test_what_is_not_finite_is_rejected(bad: float) -> None:
    score_map = hot((8, 8), (2, 2, 2, 2))
    with pytest.raises(ValueError, match="must be finite"):
        find_regions(score_map, bad, (8, 8))
    score_map[7, 7] = bad
    with pytest.raises(ValueError, match="must be finite"):
        find_regions(score_map, 1.0, (8, 8))
