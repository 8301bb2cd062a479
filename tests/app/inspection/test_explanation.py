import io

import numpy as np
import pytest
from numpy.typing import NDArray

from app.inspection.explanation import explain
from flows.fastflow.imaging.heatmap import ColourScale

SCALE = ColourScale(low=0.0, middle=2.0)
SIZE = (32, 48)


def score_map(value: float = 0.0) -> NDArray[np.float32]:
    found = np.zeros((16, 24), np.float32)
    found[4:8, 6:12] = value
    return found


def test_regions_are_in_pixels_of_the_upload() -> None:
    explained = explain(score_map(3.0), SCALE, SIZE, None, (), (16, 24))
    assert explained.regions is not None
    [region] = explained.regions
    assert region.bbox == pytest.approx((12, 8, 12, 8), abs=1)
    assert region.peak == 3.0
    assert explained.area_fraction == pytest.approx(24 / 384)


def test_values_at_the_pixel_threshold_are_not_above_it() -> None:
    assert explain(score_map(2.0), SCALE, SIZE, None, (), (16, 24)) == ({}, [], 0.0)
    assert explain(score_map(2.0), SCALE, SIZE, None, (), None) == ({}, None, 0.0)


def test_map_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="must be finite"):
        explain(score_map(np.nan), SCALE, SIZE, None, (), None)


def test_requested_drawings_are_made() -> None:
    pixels = np.zeros((*SIZE, 3), np.uint8)
    files = explain(score_map(3.0), SCALE, SIZE, pixels, ("overlay", "map"), None).files
    assert set(files) == {"overlay", "map"}
    assert files["overlay"].startswith(b"\x89PNG")
    np.testing.assert_array_equal(np.load(io.BytesIO(files["map"]), allow_pickle=False), score_map(3.0))
    assert set(explain(score_map(3.0), SCALE, SIZE, None, ["heatmap"], None).files) == {"heatmap"}
