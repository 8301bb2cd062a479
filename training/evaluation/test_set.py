"""The test set of a version: no image that training had, and each image once."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flows.fastflow.bundle import image_digests
from flows.fastflow.bundle.image_digests import CALIBRATION_IMAGES, FIT_IMAGES, ImageDigests
from flows.fastflow.calibration.images_per_part import PartsError, parts_from_names, parts_or_single_images
from flows.fastflow.files.plain_files import file_hashes
from flows.fastflow.manifest import Manifest
from training.data.check.copies import same_parts
from training.data.layout import train_images
from training.data.masks import files_of
from training.data.sample import DatasetError, Sample
from training.evaluation.near_copies import images_of_version, sample_evenly


@dataclass(frozen=True)
class TestSet:
    """The test images that a version is measured on.

    Attributes:
        hashes: sha256 of each listed image, including those left out.
        seen: number of images left out because the version had them.
        copies: number of images left out as copies of others.
        learned: images of the version, for the search for near copies.
    """

    __test__ = False  # not a test for pytest

    samples: list[Sample]
    hashes: Mapping[Path, str]
    seen: int
    copies: int
    learned: list[Path]


def choose_test_set(
    data: Path, category: str, listed: Sequence[Sample], bundle: Path, manifest: Manifest
) -> TestSet:
    """Choose the images to measure a version on.

    Args:
        listed: the test images in the data folder.

    Raises:
        BundleError: a list in the bundle was changed.
        DatasetError: the version had every one of the images.
        FileError: images cannot be read; they are named.
    """
    paths = [sample.path for sample in listed]
    hashes = dict(zip(paths, file_hashes(paths), strict=True))
    known = _known(bundle, manifest)
    fresh = _unseen(listed, hashes, bundle, known)
    samples = _each_once(fresh, hashes)
    learned = images_of_version(_learned(data, category, listed, fresh, known), known)
    return TestSet(
        samples=samples,
        hashes=hashes,
        seen=len(listed) - len(fresh),
        copies=len(fresh) - len(samples),
        learned=sample_evenly(learned, len(samples)),
    )


def show_different_parts(samples: Sequence[Sample], folder: Path) -> bool:
    """Tell if all good images, and all defective ones, show different parts, by their names.

    Raises:
        PartsError: the parts.txt cannot be used.
    """
    for defective in (False, True):
        names = [sample.path.name for sample in samples if (sample.defect is not None) == defective]
        parts = parts_or_single_images(names, folder)
        if parts is not None and len(set(parts)) < len(parts):
            return False
    return True


def count_learned_parts(samples: Sequence[Sample], data: Path, category: str) -> int:
    """Count the good test images that show a part of the training images, by their names.

    They stay in: counters that restart in each folder give equal names to different parts.
    """
    try:
        learned = train_images(data, category)
        parts = parts_from_names([path.name for path in learned], data / category)
    except (DatasetError, PartsError):  # a test set may come alone
        return 0
    good = [sample.path for sample in samples if sample.defect is None]
    return 0 if parts is None else len(same_parts(learned, parts, good, data / category))


def fingerprint(tests: TestSet) -> str:
    """Digest the test images' contents, labels and masks, independent of order and names."""
    marked = [
        (sample, kind, [file for mask in masks for file in files_of(mask)])
        for sample in tests.samples
        for kind, masks in sample.masks.items()
    ]
    files = [file for _, _, of_one in marked for file in of_one]
    digests = dict(zip(files, file_hashes(files), strict=True))
    rows = []
    for sample, kind, of_one in marked:
        found = [digests[file] for file in of_one]
        # The order of copies depends on their names.
        rows.append([tests.hashes[sample.path], kind or "", *(sorted({*found}) if sample.copies else found)])
    rows.sort()
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _known(bundle: Path, manifest: Manifest) -> list[ImageDigests]:
    """Read the digests of the images in a version's fit and calibration, as far as recorded."""
    lists = [image_digests.read_digests(bundle, manifest, name) for name in (FIT_IMAGES, CALIBRATION_IMAGES)]
    return [images for images in lists if images is not None]


def _learned(
    data: Path,
    category: str,
    listed: Sequence[Sample],
    fresh: Sequence[Sample],
    known: Sequence[ImageDigests],
) -> list[Path]:
    """List files that may be images of the version: today's training images and skipped test images."""
    if not known:
        return []
    left = {sample.path for sample in fresh}
    seen = [sample.path for sample in listed if sample.path not in left]
    try:
        return [*train_images(data, category), *seen]
    except DatasetError:  # a test set may come alone
        return seen


def _unseen(
    samples: Sequence[Sample], hashes: Mapping[Path, str], bundle: Path, known: Sequence[ImageDigests]
) -> list[Sample]:
    """Leave out test images of the version's fit or calibration: results on them flatter.

    In a plain folder all good images are training images until some are set aside.

    Args:
        hashes: the sha256 of each of them.
        known: digests of its images, from `_known`.
    """
    left = [sample for sample in samples if not any(hashes[sample.path] in images for images in known)]
    if not left:
        raise DatasetError(
            f"{bundle.parent.name}/{bundle.name} was fitted to or calibrated with every one of the "
            f"{len(samples)} test images, so they measure nothing; set others aside and train without them"
        )
    return left


def _each_once(samples: Sequence[Sample], hashes: Mapping[Path, str]) -> list[Sample]:
    """Merge byte-for-byte copies among the good test images, and among the defective ones.

    The merged sample has the kinds of defect and the masks of all its copies. A good image equal to a
    defective one stays, and so does the other: the data check reports them.
    """
    same: dict[tuple[str, bool], list[Sample]] = {}
    for sample in samples:
        same.setdefault((hashes[sample.path], sample.defect is not None), []).append(sample)
    return [replace(first, copies=tuple(copies)) for first, *copies in same.values()]
