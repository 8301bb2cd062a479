"""Statistics of an image: small, and independent of size, format and orientation."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.training.data.check.parts import part, write
from training.data.check.image_statistics import ImageStatistics, make_thumbnail, read_statistics


def look(*paths: Path) -> list[ImageStatistics]:
    looked = read_statistics(paths, threads=2, advance=lambda _: None, sample_bits=16)
    images = [p for p in looked if isinstance(p, ImageStatistics)]
    assert len(images) == len(paths)
    return images


def test_statistics_of_a_known_image(tmp_path: Path) -> None:
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, 40:] = 255
    [halves] = look(write(tmp_path / "0.png", image))
    assert halves.size == (40, 80)
    assert halves.brightness == pytest.approx(127.5, abs=1)
    assert (halves.darkest, halves.brightest) == (0, 255)
    assert halves.spread == pytest.approx(127.5, abs=1)
    assert halves.colourfulness == pytest.approx(0, abs=0.1)
    assert halves.thumbnail.shape == (64, 64)
    assert halves.thumbnail.dtype == np.uint8
    assert halves.statistics.shape == (17,)
    np.testing.assert_array_equal(make_thumbnail(image), halves.thumbnail)


def test_grey_is_grey_in_every_format_and_colour_is_not(tmp_path: Path) -> None:
    image = part(0)
    grey = np.repeat(image[..., :1], 3, axis=2)
    paths = [
        write(tmp_path / "0.png", grey),
        write(tmp_path / "1.jpg", grey, cv2.IMWRITE_JPEG_QUALITY, 60),
        write(tmp_path / "2.png", image[..., 0].copy()),
    ]
    assert all(p.colourfulness < 0.5 for p in look(*paths))
    assert look(write(tmp_path / "3.png", image))[0].colourfulness > 5
