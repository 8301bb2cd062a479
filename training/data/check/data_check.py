"""The data check: problems of a category's images, reported before a training run.

It changes nothing and leaves nothing out. Test images are checked only on request, and only to be reported.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.fastflow.calibration.images_per_part import number_by_appearance, parts_from_names
from flows.fastflow.config import MAX_SAMPLE_BITS
from training.data import layout
from training.data.check.consistency import odd_bits, odd_colours, odd_light, odd_sizes, sizes
from training.data.check.copies import copies, same_parts
from training.data.check.findings import TITLES, DataCheck, DataFinding, Severity, relative_message
from training.data.check.image_statistics import (
    ImageStatistics,
    NamedStatistics,
    UndecodableImage,
    read_statistics,
)
from training.data.check.mask_files import check_masks
from training.data.check.near_duplicates import NeighbourDistances, neighbours
from training.data.check.outliers import LIMIT, MIN_IMAGES, deviations, neighbour_distances
from training.data.check.unused_images import find_unused_images
from training.data.sample import DatasetError, NoTestImagesError, Sample
from training.terminal.progress import Silent

Stage = Callable[[str, int], AbstractContextManager[Callable[[float], None]]]
_SILENT: Stage = Silent().stage


@dataclass(frozen=True)
class _TestFiles:
    """The test images and masks of a category.

    Attributes:
        problem: the reason if there are none, relative to the data folder.
        misplaced: True if the test images may lie where the layout does not look.
    """

    samples: Sequence[Sample] = ()
    masks: Sequence[Path] = ()
    problem: str | None = None
    misplaced: bool = False


def check_data(
    data: Path,
    category: str,
    *,
    test: bool = True,
    threads: int = 2,
    sample_bits: int = MAX_SAMPLE_BITS,
    stage: Stage = _SILENT,
) -> DataCheck:
    """Check every image of a category and report what deserves a second look.

    Args:
        test: check test images and masks as well.
        sample_bits: the run's setting, see `decoder.decode_image`.
        stage: shows a progress bar, as `Progress.stage`.

    Raises:
        DatasetError: there are no training images, or the layout is unknown.
        PartsError: the category's parts.txt cannot be used.
    """
    begun = time.monotonic()
    folder = data / category
    paths = layout.train_images(data, category)
    parts = parts_from_names([path.name for path in paths], folder)
    tests = _test_files(data, category) if test else _TestFiles()
    every = [*paths, *(sample.path for sample in tests.samples)]
    with stage("data", len(every)) as advance:
        images = read_statistics(every, threads=threads, advance=advance, sample_bits=sample_bits)
    train, tested = images[: len(paths)], images[len(paths) :]
    findings = _undecodable(train, folder, severity="error")
    findings += _undecodable(tested, folder, severity="warning")
    findings += _odd_images(_decoded(train), _decoded(tested), tests.samples, folder, sample_bits)
    findings += _repeated_images(paths, train, _decoded(tested), parts, tests.samples, folder)
    # Test images may be missing because they are misplaced: then those are worth a finding.
    known = tests.samples or tests.misplaced
    others = [*(sample.path for sample in tests.samples), *tests.masks] if known else None
    findings += find_unused_images(folder, paths, others)
    by_path = {image.path: image for image in _decoded(images)}
    findings += check_masks(tests.samples, tests.masks, paths, by_path, folder, threads=threads)
    order = list(TITLES)
    return DataCheck(
        category=category,
        layout=layout.find_layout(data, category).NAME,
        train=len(paths),
        parts=None if parts is None else len(set(parts)),
        different=_count_different(train, parts),
        test=len(tests.samples) or None,
        no_test=tests.problem,
        masks=len(tests.masks),
        sizes=sizes(_decoded(train)),
        seconds=round(time.monotonic() - begun, 2),
        findings=sorted(findings, key=lambda f: (order.index(f.kind), f.severity)),
    )


def _test_files(data: Path, category: str) -> _TestFiles:
    """List test images and masks; a category without them can still be trained."""
    try:
        found = layout.find_layout(data, category)
        return _TestFiles(found.test_samples(data, category), found.masks(data, category))
    except DatasetError as error:
        problem = relative_message(str(error), data)
        return _TestFiles(problem=problem, misplaced=isinstance(error, NoTestImagesError))


def _decoded(images: Sequence[ImageStatistics | UndecodableImage]) -> list[ImageStatistics]:
    return [image for image in images if isinstance(image, ImageStatistics)]


def _named(images: Sequence[ImageStatistics], folder: Path) -> list[NamedStatistics]:
    return [(image.path.relative_to(folder).as_posix(), image) for image in images]


def _undecodable(
    images: Sequence[ImageStatistics | UndecodableImage], folder: Path, *, severity: Severity
) -> list[DataFinding]:
    findings = []
    for image in images:
        if isinstance(image, UndecodableImage):
            name = image.path.relative_to(folder).as_posix()
            message = f"{name}: {image.reason}"
            findings.append(DataFinding(kind="undecodable", severity=severity, files=[name], message=message))
    return findings


def _odd_images(
    train: Sequence[ImageStatistics],
    tested: Sequence[ImageStatistics],
    samples: Sequence[Sample],
    folder: Path,
    sample_bits: int,
) -> list[DataFinding]:
    """Find images with unusual bit depth, light, size or colour."""
    if not train:
        return []
    every = _named([*train, *tested], folder)
    # Only good parts: a defective part may well be dark.
    good = {sample.path for sample in samples if sample.defect is None}
    good_images = _named([*train, *(image for image in tested if image.path in good)], folder)
    return [
        *odd_bits(every, sample_bits),
        *odd_light(train, good_images),
        *odd_sizes(train, every),
        *odd_colours(train, every),
    ]


def _repeated_images(
    paths: Sequence[Path],
    images: Sequence[ImageStatistics | UndecodableImage],
    tested: Sequence[ImageStatistics],
    parts: Sequence[str] | None,
    samples: Sequence[Sample],
    folder: Path,
) -> list[DataFinding]:
    """Find outliers, copies and near-duplicates among the training images, and their copies in the test."""
    train = _decoded(images)
    if parts is None:
        shown = np.arange(len(train))
    else:
        pairs = zip(parts, images, strict=True)
        shown = number_by_appearance([part for part, image in pairs if isinstance(image, ImageStatistics)])
    findings = []
    if len(np.unique(shown)) > 1:
        near = neighbours(np.stack([image.thumbnail for image in train]), shown)
        findings += _outliers(_named(train, folder), shown, near)
        findings += copies(_named(train, folder), _named(tested, folder), near)
    if parts is not None:
        leaked = {finding.files[0] for finding in findings if finding.kind == "leak"}
        good = [sample.path for sample in samples if sample.defect is None]
        by_part = same_parts(paths, parts, good, folder)
        findings += [finding for finding in by_part if finding.files[0] not in leaked]
    return findings


def _count_different(
    images: Sequence[ImageStatistics | UndecodableImage], parts: Sequence[str] | None
) -> int:
    """Count the parts, or else the images, without copies and undecodable files."""
    shown: Sequence[str | int] = range(len(images)) if parts is None else parts
    by_content: dict[str, str | int] = {}
    for part, image in zip(shown, images, strict=True):
        if isinstance(image, ImageStatistics):
            by_content.setdefault(image.sha256, part)
    return len(set(by_content.values()))


def _outliers(
    train: Sequence[NamedStatistics], parts: NDArray[np.int64], near: NeighbourDistances
) -> list[DataFinding]:
    """Find good images unlike the others, the strangest first, by their most distinctive property."""
    if len(train) < MIN_IMAGES:
        return []
    statistics = np.stack([image.statistics for _, image in train])
    # The smallest deviation: a grey level, or 5 % of an edge's strength.
    by_statistics = deviations(neighbour_distances(statistics, min_deviation=1.0, parts=parts))
    properties = {"what is where": deviations(near.fifth), "light, colour and sharpness": by_statistics}
    findings = []
    for i, (name, _) in enumerate(train):
        by = max(properties, key=lambda key: properties[key][i])
        if (deviation := float(properties[by][i])) > LIMIT:
            message = f"{name} is {deviation:.1f} deviations from the others by {by}"
            findings.append(DataFinding(kind="outlier", files=[name], message=message, measure=deviation))
    return sorted(findings, key=lambda f: -(f.measure or 0))
