"""Images for density estimation: integers per pixel, in three fixed splits.

`train` fits parameters, `validation` decides every choice, and `test` is used once, for the reported results.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from flows.fastflow.imaging import decoder, image_formats, resizing
from flows.fastflow.imaging.image_files import is_image_file

DIGIT_LEVELS = 17  # scikit-learn's digits count the dots of a 4 x 4 square: 0 to 16
IMAGE_LEVELS = 256
_SEED = 42  # of every split, so that all machines have the same test images
_HELD_OUT = 1 / 6  # share of validation, and also of test


class ImageDataError(ValueError):
    """The images are missing, too few, or of a wrong size."""


@dataclass(frozen=True)
class ImageSplits:
    """Images in three splits.

    Attributes:
        train: (N, C, H, W), float32 with integers 0 ... levels - 1, as `flows.recipes` take with `levels`.
        validation: (M, C, H, W).
        test: (K, C, H, W).
        levels: number of values of a pixel.
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    levels: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        channels, height, width = self.train.shape[1:]
        return channels, height, width


def digits() -> ImageSplits:
    """Load scikit-learn's 1,797 digits, (1, 8, 8), 17 levels, in fixed splits.

    299 for validation and 300 for the test, stratified by class with seed 42; the other 1,198 for training.
    Source: the test set of the UCI data set "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak
    1998, doi:10.24432/C50P49), which scikit-learn includes.

    >>> data = digits()
    >>> data.train.shape, data.validation.shape, data.test.shape
    (torch.Size([1198, 1, 8, 8]), torch.Size([299, 1, 8, 8]), torch.Size([300, 1, 8, 8]))
    """
    loaded = load_digits()
    values = torch.from_numpy(loaded.images).float()[:, None]
    train, validation, test = _parts(len(values), loaded.target)
    return ImageSplits(values[train], values[validation], values[test], DIGIT_LEVELS)


def folder(path: Path, size: int, channels: int = 3, *, scales: int = 2) -> ImageSplits:
    """Load the images directly in a folder, square, in three splits by a fixed seed.

    They are decoded as everywhere else (`flows.fastflow.imaging.decoder`) and brought to size x size
    pixels; the aspect ratio may change. Equal images are used once: a copy of
    a training image among the test images would flatter every result. Hidden files and files of other
    suffixes are skipped.

    Args:
        size: side in pixels, a multiple of 2^scales, so that a flow with that many scales can halve it.
        channels: 1 for grey, 3 for RGB.

    Raises:
        ImageDataError: the folder is missing or holds fewer than 6 different images; an image cannot be
            decoded (`flows.fastflow.imaging.image_errors.ImageError`; the message names it); the size or the
            channels are not as above.
    """
    if channels not in (1, 3):
        raise ImageDataError(f"images have 1 channel (grey) or 3 (RGB); got {channels}")
    if scales < 0 or size < 1 or size % 2**scales:
        raise ImageDataError(
            f"a flow of {scales} scales halves its images {scales} times, so their size must be a multiple "
            f"of {2 ** max(scales, 0)}; got {size}"
        )
    values = torch.from_numpy(_distinct([read(file, size, channels) for file in files(path)]))
    if len(values) < 6:
        raise ImageDataError(
            f"{path} has {len(values)} different images; at least 6 are needed for training, validation "
            f"and test"
        )
    train, validation, test = _parts(len(values), None)
    values = values.float()
    return ImageSplits(values[train], values[validation], values[test], IMAGE_LEVELS)


def files(path: Path) -> list[Path]:
    """List the visible images directly in a folder, sorted by name.

    Raises:
        ImageDataError: the folder is missing or holds no images.
    """
    if not path.is_dir():
        raise ImageDataError(f"there is no folder of images {path}")
    found = sorted(filter(is_image_file, path.iterdir()))
    if not found:
        suffixes = ", ".join(sorted(image_formats.IMAGE_SUFFIXES))
        raise ImageDataError(
            f"there are no images in {path}; expected files with one of the suffixes {suffixes}"
        )
    return found


def read(file: Path, size: int, channels: int) -> NDArray[np.uint8]:
    """Read an image at size x size, (C, size, size), C = 1 for grey or 3.

    Raises:
        ImageError: the image cannot be decoded; it is named.
    """
    pixels = decoder.read_image(file)  # (H, W, 3)
    if channels == 1:
        pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), dtype=np.uint8)[..., None]
    resized = resizing.resize(pixels, (size, size)).reshape(size, size, channels)
    return np.ascontiguousarray(resized.transpose(2, 0, 1))


def _distinct(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Stack the images without repetitions, in order."""
    return np.stack(list({image.tobytes(): image for image in reversed(images)}.values())[::-1])


def _parts(count: int, classes: NDArray[np.int64] | None) -> tuple[list[int], list[int], list[int]]:
    """Draw rows for training, validation and test, stratified by class if known."""
    held_out = round(2 * _HELD_OUT * count)
    train, rest = train_test_split(np.arange(count), test_size=held_out, random_state=_SEED, stratify=classes)
    validation, test = train_test_split(
        rest, test_size=0.5, random_state=_SEED, stratify=None if classes is None else classes[rest]
    )
    return sorted(train.tolist()), sorted(validation.tolist()), sorted(test.tolist())
