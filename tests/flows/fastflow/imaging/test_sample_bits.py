"""Bits that the samples of 16-bit images use."""

import cv2
import numpy as np
import pytest

from flows.fastflow.imaging.decoder import decode_image
from flows.fastflow.imaging.sample_bits import bits_used


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize("bits", [1, 10, 12, 16])
def test_how_many_bits_a_deep_grey_image_uses(kind: str, bits: int) -> None:
    samples = np.zeros((37, 53), np.uint16)
    samples[3, 5] = 2**bits - 1
    encoded = cv2.imencode(f".{kind}", samples)[1].tobytes()
    assert bits_used(encoded) == (bits, 0)  # it may be hot
    samples[3, 6] = 2**bits - 1
    assert bits_used(cv2.imencode(f".{kind}", samples)[1].tobytes()) == (bits, bits)
    assert int(decode_image(encoded).max()) == (2**bits - 1) >> 8
