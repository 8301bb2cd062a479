import hashlib

import numpy as np
import pytest

from app.inspection.decoding import Pixels, decode_upload
from flows.fastflow.config import MAX_SAMPLE_BITS, Geometry
from flows.fastflow.imaging import decoder, image_limits
from flows.fastflow.imaging.geometry import PreparedImage, compute_layout

Images = dict[str, list[bytes]]
LIMITS = image_limits.ImageLimits(max_bytes=200_000, max_pixels=100_000)


def halve(pixels: Pixels) -> PreparedImage:
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
