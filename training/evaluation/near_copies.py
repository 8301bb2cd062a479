"""Test images that are almost training images: saved again, or another photograph of the same part.

Byte-for-byte copies are left out of an evaluation. Near copies are uncertain, so they stay in and are
reported: results on them flatter.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.fastflow.bundle.image_digests import ImageDigests
from flows.fastflow.calibration.images_per_part import number_by_appearance, parts_or_single_images
from flows.fastflow.files.listing import join_first
from flows.fastflow.files.plain_files import FileError, sha256_of
from flows.fastflow.imaging.image_limits import FILE_LIMITS
from training.data.check.image_statistics import ImageStatistics, read_statistics
from training.data.check.near_duplicates import LIMIT, nearest_in_training, neighbours

_MAX_NAMES = 5  # in a message
_MAX_PER_TEST_IMAGE = 10  # training images; the search must not take longer than the evaluation


@dataclass(frozen=True)
class NearCopies:
    """Near copies among the test images.

    Attributes:
        pairs: test images that are almost training images, the closest first, each as "TEST ~ TRAINING" with
            paths within the category's folder.
        compared_with: number of training images compared; 0 if none was available.
    """

    pairs: list[str]
    compared_with: int


def images_of_version(paths: Sequence[Path], known: Collection[ImageDigests]) -> list[Path]:
    """Select the files that are images of a version, by content; unreadable files are skipped."""
    selected = []
    for path in paths:
        try:
            sha256 = sha256_of(path, FILE_LIMITS.max_bytes)
        except (OSError, FileError):
            continue
        if any(sha256 in images for images in known):
            selected.append(path)
    return selected


def sample_evenly(learned: Sequence[Path], tested: int) -> list[Path]:
    """Select at most ten training images per test image, evenly spaced."""
    step = max(1, -(-len(learned) // max(1, _MAX_PER_TEST_IMAGE * tested)))
    return list(learned[::step])


def near_copies(
    tested: Sequence[Path],
    thumbnails: NDArray[np.uint8],
    learned: Sequence[Path],
    folder: Path,
    *,
    threads: int,
    advance: Callable[[int], None],
    sample_bits: int,
) -> NearCopies:
    """Search the test images for near copies of images in a version's fit or calibration.

    Args:
        thumbnails: (M, 64, 64) lightness of each of them, see `image_statistics.make_thumbnail`.
        learned: images of the version, from `images_of_version`; undecodable ones are skipped.
        folder: the category's folder, which may hold a parts.txt.
        advance: called with 1 after every one of `learned`.

    Raises:
        PartsError: the parts.txt cannot be used.
    """
    looked = read_statistics(learned, threads=threads, advance=advance, sample_bits=sample_bits)
    train = [one for one in looked if isinstance(one, ImageStatistics)]
    parts = parts_or_single_images([one.path.name for one in train], folder)
    shown = np.arange(len(train)) if parts is None else number_by_appearance(parts)
    # The usual distance is one between different parts.
    if len(np.unique(shown)) < 2 or not len(tested):
        return NearCopies([], 0)
    images = np.stack([one.thumbnail for one in train])
    index, ratio = nearest_in_training(thumbnails, images, neighbours(images, shown).usual)
    order = [i for i in np.argsort(ratio, kind="stable").tolist() if ratio[i] <= LIMIT]
    names = [
        " ~ ".join(path.relative_to(folder).as_posix() for path in (tested[i], train[index[i]].path))
        for i in order
    ]
    return NearCopies(names, len(train))


def describe_near_copies(pairs: Sequence[str], compared_with: int) -> str | None:
    """Describe the near copies, or why there was no search; None if there are none.

    Args:
        pairs, compared_with: see `NearCopies`.
    """
    if compared_with == 0:
        return (
            "whether test images nearly are training images was not looked for: too few of those that "
            "the version was fitted to are known and in the data folder"
        )
    if not pairs:
        return None
    many = f"{len(pairs)} test images nearly are training images"
    if len(pairs) == 1:
        many = "1 test image nearly is a training image"
    return (
        f"{many}, saved anew or of the same part: figures on such flatter "
        f"({join_first(pairs, _MAX_NAMES)}; looked for among {compared_with})"
    )
