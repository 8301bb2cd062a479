"""Pinned images: later reads give the hashed content, or a named error."""

import os
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from flows.fastflow.imaging import decoder
from flows.fastflow.imaging.image_errors import ImageError
from flows.fastflow.imaging.image_limits import FILE_LIMITS
from tests.training.pins import pins
from training.data.pinned_images import PinnedImage, read, read_bytes, size_of
from training.data.sample import DatasetError


@pytest.fixture
def path(tiny_data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(tiny_data / "tiny/train/good/000.png", tmp_path))


@pytest.fixture
def image(path: Path) -> PinnedImage:
    return pins([path])[0]


def test_image_that_stayed_as_it_was_is_read_as_any_other(path: Path, image: PinnedImage) -> None:
    assert read_bytes(image) == path.read_bytes()
    assert np.array_equal(read(image, 16), decoder.read_image(path))


@pytest.mark.parametrize("change", ["a byte more", "cut off", "too large"])
def test_changed_image_is_named_and_what_to_do(path: Path, image: PinnedImage, change: str) -> None:
    if change == "too large":
        os.truncate(path, FILE_LIMITS.max_bytes + 2)
    else:
        path.write_bytes(path.read_bytes() + b"\0" if change == "a byte more" else path.read_bytes()[:100])
    told = r"000\.png was changed since the run began\. Put it back .*--resume goes on from what is fitted"
    for look in (lambda: read(image, 16), lambda: size_of(image)):
        with pytest.raises(DatasetError, match=told):
            look()


def test_image_that_is_gone_is_named_and_what_to_do(path: Path, image: PinnedImage) -> None:
    path.unlink()
    with pytest.raises(DatasetError, match=r"000\.png .*: No such.*Put it back, and --resume goes on"):
        read(image, 16)


def test_file_that_never_was_an_image_is_named(path: Path) -> None:
    path.write_bytes(b"no image")
    [image] = pins([path])
    for look in (lambda: read(image, 16), lambda: size_of(image)):
        with pytest.raises(ImageError, match=r"000\.png: The file is not a PNG"):
            look()


def test_size_is_that_of_the_pixels(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (30, 20)).save(tmp_path / "long.png")
    [image] = pins([tmp_path / "long.png"])
    assert size_of(image) == read(image, 16).shape[:2] == (20, 30)
