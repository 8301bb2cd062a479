"""Masks of defects: files, or folders of files, as pixels."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.fastflow.images import read
from training.datasets.folders import images
from training.datasets.sample import DatasetError

# Below this a mask's brightest value is the number of a kind of defect, not a shade (VisA has ten at most).
_NUMBERS = 64


def read_mask(path: Path, image_size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask as (height, width), True where the defect is; of a folder, the union of the pictures in it.

    A dark file holds numbers of kinds of defects, so what is not zero is defective: a mask of 0 and 1 reads
    as one of 0 and 255. In a brighter one a pixel is defective where it is nearer to the brightest value than
    to black, so that a lossy mask, which has grey edges, reads as it was drawn.

    Args:
        path: the file or folder.
        image_size: (height, width) of the picture that it belongs to.

    Raises:
        ImageError: a file cannot be decoded; it is named.
        DatasetError: a file has another size than its picture, or the folder is empty.
    """
    files = images(path) if path.is_dir() else [path]
    if not files:
        raise DatasetError(f"the folder of masks {path} holds no picture")
    union = np.zeros(image_size, dtype=np.bool_)
    for file in files:
        values = read(file).max(2)
        if values.shape != tuple(image_size):
            raise DatasetError(
                f"the mask {file} has size {values.shape[1]}x{values.shape[0]}, its picture "
                f"{image_size[1]}x{image_size[0]}"
            )
        highest = int(values.max())
        union |= values > (0 if highest < _NUMBERS else highest / 2)
    return union
