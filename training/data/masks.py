"""Masks of defects: files, or folders of files, as pixels."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from flows.fastflow.imaging.decoder import read_image, read_image_bytes
from flows.fastflow.imaging.sample_bits import bits_used
from training.data.folders import list_images
from training.data.sample import DatasetError

# Below this a mask's brightest value is the number of a kind of defect, not a shade (VisA has ten at most).
_MAX_NUMBER = 64
_MAX_SHADES = 16  # including black


def files_of(mask: Path) -> list[Path]:
    """List the files of a mask: the file itself, or the images in a folder."""
    return list_images(mask) if mask.is_dir() else [mask]


def read_mask(path: Path, image_size: tuple[int, int]) -> NDArray[np.bool_]:
    """Read a mask as (height, width), True where defective; a folder gives the union of its images.

    A dark file holds numbers of kinds of defects, so every non-zero pixel is defective: 0 and 1 read as 0 and
    255. In a brighter file a pixel is defective if it is nearer to the brightest value than to black, so that
    the grey edges of a lossy mask read as drawn.

    Args:
        image_size: (height, width) of the mask's image.

    Raises:
        ImageError: a file cannot be decoded; it is named.
        DatasetError: a file has another size than the image, or the folder is empty.
    """
    files = files_of(path)
    if not files:
        raise DatasetError(f"the folder of masks {path} holds no image")
    union = np.zeros(image_size, dtype=np.bool_)
    for file in files:
        values = _values(file)
        if values.shape != tuple(image_size):
            lies = values.shape == tuple(image_size)[::-1]
            raise DatasetError(
                f"the mask {file} has size {values.shape[1]}x{values.shape[0]}, its image "
                f"{image_size[1]}x{image_size[0]}{', perhaps turned by its EXIF orientation' if lies else ''}"
            )
        union |= values > _level(int(values.max()))
    return union


def ignored_share(path: Path) -> float:
    """Compute the share, 0 to 1, of drawn pixels in flat areas that `read_mask` ignores as too dark.

    Only masks of few shades count: their dark areas may be kinds of defects. Edges are grey too, but hardly a
    pixel wide in one shade.

    Args:
        path: a mask that `read_mask` can read.
    """
    drawn = left = 0
    for file in files_of(path):
        values = _values(file)
        shades = np.unique(values)
        if len(shades) <= _MAX_SHADES:
            drawn += int(np.count_nonzero(values))
            for shade in shades[(shades > 0) & (shades <= _level(int(shades[-1])))]:
                left += int(cv2.erode((values == shade).astype(np.uint8), np.ones((3, 3), np.uint8)).sum())
    return left / drawn if drawn else 0.0


def _values(file: Path) -> NDArray[np.uint8]:
    """Read the pixels of a mask, (H, W); 16-bit samples are scaled by the bits they use."""
    pixels = read_image(file)
    used = bits_used(read_image_bytes(file))
    if used is not None:
        pixels = read_image(file, sample_bits=max(8, used.brightest))
    values: NDArray[np.uint8] = pixels.max(2)
    return values


def _level(highest: int) -> float:
    """Compute the level above which a pixel is defective, from the brightest value."""
    return 0 if highest < _MAX_NUMBER else highest / 2
