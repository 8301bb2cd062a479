import hashlib
import io

import numpy as np
import pytest
from numpy.typing import NDArray

from app.errors.problems import Problem, ProblemName
from app.inspection.decoding import Pixels, decode_upload, explain
from flows.fastflow.config import MAX_SAMPLE_BITS, Geometry
from flows.fastflow.imaging import decoder, image_limits
from flows.fastflow.imaging.geometry import PreparedImage, compute_layout
from flows.fastflow.imaging.heatmap import ColourScale

Images = dict[str, list[bytes]]
LIMITS = image_limits.ImageLimits(max_bytes=200_000, max_pixels=100_000)
SCALE = ColourScale(low=0.0, middle=2.0)
SIZE = (32, 48)


def halve(pixels: Pixels) -> PreparedImage:
    """What a model might take."""
    size = pixels.shape[0] // 2, pixels.shape[1] // 2
    return compute_layout(Geometry(), pixels.shape[:2], size, (1,)).prepare(pixels)


@pytest.mark.parametrize("keep_pixels", [True, False])
def test_upload_is_decoded_and_prepared(tiny_images: Images, keep_pixels: bool) -> None:
    data = tiny_images["good"][0]
    pixels = decoder.decode_image(data)
    decoded = decode_upload(data, LIMITS, MAX_SAMPLE_BITS, halve, keep_pixels=keep_pixels)
    np.testing.assert_array_equal(decoded.prepared.pixels, halve(pixels).pixels)
    assert decoded.size == pixels.shape[:2]
    assert decoded.sha256 == hashlib.sha256(data).hexdigest()
    if keep_pixels:
        np.testing.assert_array_equal(decoded.pixels, pixels)
    assert decoded.nbytes == decoded.prepared.nbytes + (pixels.nbytes if keep_pixels else 0)
    assert (decoded.pixels is None) != keep_pixels


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"", "unsupported-media-type"),
        (b"GIF89a" + bytes(50), "unsupported-media-type"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "undecodable-image"),
        (bytes(200_001), "too-large"),
    ],
)
def test_what_is_no_image_is_refused(data: bytes, name: ProblemName) -> None:
    with pytest.raises(Problem) as caught:
        decode_upload(data, LIMITS, MAX_SAMPLE_BITS, halve, keep_pixels=False)
    assert (caught.value.name, bool(caught.value.detail)) == (name, True)


def score_map(value: float = 0.0) -> NDArray[np.float32]:
    found = np.zeros((16, 24), np.float32)
    found[4:8, 6:12] = value
    return found


def test_regions_are_above_the_pixel_threshold_in_pixels_of_the_upload() -> None:
    explained = explain(score_map(3.0), SCALE, SIZE, None, (), (16, 24))
    assert explained.regions is not None
    [region] = explained.regions
    assert region.bbox == pytest.approx((12, 8, 12, 8), abs=1)
    assert region.peak == 3.0
    assert explained.area_fraction == pytest.approx(24 / 384)


def test_values_at_the_pixel_threshold_are_not_above_it() -> None:
    assert explain(score_map(2.0), SCALE, SIZE, None, (), (16, 24)) == ({}, [], 0.0)
    assert explain(score_map(2.0), SCALE, SIZE, None, (), None) == ({}, None, 0.0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_map_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="must be finite"):
        explain(score_map(value), SCALE, SIZE, None, (), None)


def test_drawings_are_made_as_asked_for() -> None:
    pixels = np.zeros((*SIZE, 3), np.uint8)
    files = explain(score_map(3.0), SCALE, SIZE, pixels, ("overlay", "map"), None).files
    assert set(files) == {"overlay", "map"}
    assert files["overlay"].startswith(b"\x89PNG")
    np.testing.assert_array_equal(np.load(io.BytesIO(files["map"]), allow_pickle=False), score_map(3.0))
    assert set(explain(score_map(3.0), SCALE, SIZE, None, ["heatmap"], None).files) == {"heatmap"}
