"""Statistics of images: each is decoded once and reduced to a few kilobytes."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from flows.fastflow.imaging.decoder import decode_image, read_image_bytes
from flows.fastflow.imaging.image_errors import ImageError
from flows.fastflow.imaging.image_limits import FILE_LIMITS
from flows.fastflow.imaging.resizing import resize
from flows.fastflow.imaging.sample_bits import BitsUsed, bits_used

THUMBNAIL = 64  # px
_SIDE = 256  # px; statistics are computed at this size, so that images of other sizes compare
_PERCENTILES = (5, 25, 50, 75, 95)
_OCTAVES = 4


@dataclass(frozen=True)
class ImageStatistics:
    """Statistics of one image.

    Attributes:
        size: (height, width) in pixels.
        bits: bits used by its samples, see `sample_bits.bits_used`.
        brightness: mean lightness, 0 to 255.
        darkest, brightest: 5th and 95th percentile of the lightness.
        spread: standard deviation of the lightness; 0 if all pixels are equal.
        colourfulness: root mean square of CIELAB's a and b; 0 if all pixels are grey.
        thumbnail: (64, 64) uint8, the lightness.
        statistics: (17,) float32, independent of position: percentiles of the lightness, mean and spread of
            the colour (CIELAB), and the strength of vertical and horizontal edges at four scales, in steps
            of 5 %.
    """

    path: Path
    sha256: str
    size: tuple[int, int]
    bits: BitsUsed | None
    brightness: float
    darkest: float
    brightest: float
    spread: float
    colourfulness: float
    thumbnail: NDArray[np.uint8]
    statistics: NDArray[np.float32]


@dataclass(frozen=True)
class UndecodableImage:
    """A file that cannot be decoded, with the reason."""

    path: Path
    reason: str


NamedStatistics = tuple[str, ImageStatistics]  # with the path relative to the category's folder


def read_statistics(
    paths: Sequence[Path], *, threads: int, advance: Callable[[int], None], sample_bits: int
) -> list[ImageStatistics | UndecodableImage]:
    """Decode every image once and compute its statistics.

    Args:
        threads: number of images decoded in parallel; each holds one image in memory.
        sample_bits: see `decoder.decode_image`.

    Returns:
        One result per path, in the same order.
    """
    with ThreadPoolExecutor(threads) as pool:
        results: list[ImageStatistics | UndecodableImage] = []
        for result in pool.map(partial(_read, sample_bits=sample_bits), paths):
            results.append(result)
            advance(1)
    return results


def make_thumbnail(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Make the thumbnail of a decoded image, (64, 64) uint8, as in `ImageStatistics`.

    Args:
        image: (H, W, 3) uint8, RGB.
    """
    return resize(_lightness(_lab(image)), (THUMBNAIL, THUMBNAIL))


def _lab(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(resize(image, (_SIDE, _SIDE)), cv2.COLOR_RGB2LAB), dtype=np.uint8)


def _lightness(lab: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(lab[..., 0], dtype=np.uint8)


def _read(path: Path, sample_bits: int) -> ImageStatistics | UndecodableImage:
    try:
        data = read_image_bytes(path)
        image = decode_image(data, FILE_LIMITS, sample_bits)
    except ImageError as error:
        return UndecodableImage(path, str(error))
    except OSError as error:
        return UndecodableImage(path, f"The file cannot be read: {error.strerror}.")
    lab = _lab(image)
    lightness = _lightness(lab)
    mean, spread = (np.asarray(v, dtype=np.float32).ravel() for v in cv2.meanStdDev(lab))
    percentiles = _percentiles(lightness)
    statistics = [*percentiles, *mean[1:], *spread[1:], *_edges(lightness)]
    return ImageStatistics(
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        size=(image.shape[0], image.shape[1]),
        bits=bits_used(data),
        brightness=float(mean[0]),
        darkest=percentiles[0],
        brightest=percentiles[-1],
        spread=float(spread[0]),
        colourfulness=float(np.hypot(np.hypot(*(mean[1:] - 128)), np.hypot(*spread[1:]))),
        thumbnail=resize(lightness, (THUMBNAIL, THUMBNAIL)),
        statistics=np.asarray(statistics, dtype=np.float32),
    )


def _percentiles(lightness: NDArray[np.uint8]) -> list[float]:
    """Compute the `_PERCENTILES` of the grey levels."""
    below = np.bincount(lightness.ravel(), minlength=256).cumsum()
    return [float(np.searchsorted(below, share / 100 * lightness.size)) for share in _PERCENTILES]


def _edges(lightness: NDArray[np.uint8]) -> list[float]:
    """Compute 20 ln of the mean gradient along both axes at `_OCTAVES` scales; a step of 1 is 5 %."""
    level = lightness.astype(np.float32)
    strengths = []
    for _ in range(_OCTAVES):
        strengths += [cv2.mean(cv2.absdiff(level[1:], level[:-1]))[0]]
        strengths += [cv2.mean(cv2.absdiff(level[:, 1:], level[:, :-1]))[0]]
        level = resize(level, (level.shape[0] // 2, level.shape[1] // 2))
    # Differences below a fifth of a grey level are noise.
    return [20 * float(np.log(strength + 0.2)) for strength in strengths]
