"""Damaged images are refused without a word of the decoders on standard error."""

import io
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from flows.fastflow.imaging import decoder, image_errors


def damaged(kind: str, **options: str) -> list[bytes]:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    Image.fromarray(noise).save(file, kind, **options)
    data = file.getvalue()
    places = range(100, len(data), len(data) // 20)
    return [data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :] for at in places]


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("JPEG", {}), ("TIFF", {"compression": "tiff_lzw"})]
)
def test_decoders_write_nothing_while_others_may(
    kind: str, options: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    def decode(data: bytes) -> None:
        with suppress(image_errors.ImageError):
            decoder.decode_image(data)
        os.write(2, b".")

    pictures = damaged(kind, **options)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(decode, pictures))
    assert capfd.readouterr().err == "." * len(pictures)
