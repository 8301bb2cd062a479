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
_NUMBERS = 64
_FEW = 16  # shades, black among them


def files_of(mask: Path) -> list[Path]:
    """The files that make a mask: itself, or the images in it where it is a folder."""
    return list_images(mask) if mask.is_dir() else [mask]


def read_mask(path: Path, image_size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask as (height, width), True where the defect is; of a folder, the union of the images in it.

    A dark file holds numbers of kinds of defects, so what is not zero is defective: a mask of 0 and 1 reads
    as one of 0 and 255. In a brighter one a pixel is defective where it is nearer to the brightest value than
    to black, so that a lossy mask, which has grey edges, reads as it was drawn.

    Args:
        path: the file or folder.
        image_size: (height, width) of the image that it belongs to.

    Raises:
        ImageError: a file cannot be decoded; it is named.
        DatasetError: a file has another size than its image, or the folder is empty.
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
    """Of what is drawn in a mask of few shades, the share of flat areas too dark for `read_mask`, 0 to 1.

    These may be kinds of defects. Edges are grey too, but hardly a pixel wide of one shade.

    Args:
        path: as of `read_mask`, which can read it.
    """
    drawn = left = 0
    for file in files_of(path):
        values = _values(file)
        shades = np.unique(values)
        if len(shades) <= _FEW:
            drawn += int(np.count_nonzero(values))
            for shade in shades[(shades > 0) & (shades <= _level(int(shades[-1])))]:
                left += int(cv2.erode((values == shade).astype(np.uint8), np.ones((3, 3), np.uint8)).sum())
    return left / drawn if drawn else 0.0


def _values(file: Path) -> NDArray[np.uint8]:
    """Pixels of a mask, (H, W): of 16 bits the upper 8 of those used, for 1 and 255 are marks there too."""
    pixels = read_image(file)
    used = bits_used(read_image_bytes(file))
    if used is not None:
        pixels = read_image(file, sample_bits=max(8, used.brightest))
    values: NDArray[np.uint8] = pixels.max(2)
    return values


def _level(highest: int) -> float:
    """What a defective pixel is above, in a mask of that brightest value."""
    return 0 if highest < _NUMBERS else highest / 2
