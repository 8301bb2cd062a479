"""Test images that nearly are images of the fit: saved anew, or another photograph of the same part.

Copies byte for byte are left out of an evaluation. Of these nobody can be sure, so they are measured like all
others and told about: figures on them flatter.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.fastflow.bundle.image_digests import ImageDigests
from flows.fastflow.calibration.parts import number_by_appearance, parts_or_single_images
from flows.fastflow.files.listing import join_first
from flows.fastflow.files.plain_files import FileError, sha256_of
from flows.fastflow.imaging.image_limits import FILE_LIMITS
from training.data.check.image_statistics import ImageStatistics, read_statistics
from training.data.check.near_duplicates import LIMIT, nearest_in_training, neighbours

_SHOWN = 5  # of the names in a message
_MOST = 10  # training images for each test image: looking for copies is not to take longer than the rest


@dataclass(frozen=True)
class NearCopies:
    """What was found.

    Attributes:
        found: test images that nearly are training images, the closest first, each as "TEST ~ TRAINING",
            named within the category's folder.
        compared_with: how many training images they were compared with; 0 where none could be found.
    """

    found: list[str]
    compared_with: int


def images_of_version(paths: Sequence[Path], known: Collection[ImageDigests]) -> list[Path]:
    """Those of the files that are images of a version, by their contents; what cannot be read is none."""
    found = []
    for path in paths:
        try:
            sha256 = sha256_of(path, FILE_LIMITS.max_bytes)
        except (OSError, FileError):
            continue
        if any(sha256 in images for images in known):
            found.append(path)
    return found


def sample_evenly(learned: Sequence[Path], tested: int) -> list[Path]:
    """Training images, at most ten for each of so many test images, evenly from among all."""
    step = max(1, -(-len(learned) // max(1, _MOST * tested)))
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
    """Look for test images that nearly are images which a version was fitted to or calibrated with.

    Args:
        tested: the test images.
        thumbnails: (M, 64, 64) lightness of each of them, see `image_statistics.make_thumbnail`.
        learned: those of the version, from `images_of_version`; what cannot be decoded is passed over.
        folder: the category's, which may have a parts.txt.
        threads: images decoded at a time.
        advance: called with 1 after every one of `learned`.
        sample_bits: of the images, see `images.decode`.

    Raises:
        PartsError: there is a parts.txt that cannot be used.
    """
    looked = read_statistics(learned, threads=threads, advance=advance, sample_bits=sample_bits)
    train = [one for one in looked if isinstance(one, ImageStatistics)]
    parts = parts_or_single_images([one.path.name for one in train], folder)
    shown = np.arange(len(train)) if parts is None else number_by_appearance(parts)
    # What is usual is a distance between different parts.
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


def describe_near_copies(found: Sequence[str], compared_with: int) -> str | None:
    """A line about what `near_copies` found, or that it could not be looked for; None where there is none.

    Args:
        found, compared_with: see `NearCopies`.
    """
    if compared_with == 0:
        return (
            "whether test images nearly are training images was not looked for: too few of those that "
            "the version was fitted to are known and in the data folder"
        )
    if not found:
        return None
    many = f"{len(found)} test images nearly are training images"
    if len(found) == 1:
        many = "1 test image nearly is a training image"
    return (
        f"{many}, saved anew or of the same part: figures on such flatter "
        f"({join_first(found, _SHOWN)}; looked for among {compared_with})"
    )
