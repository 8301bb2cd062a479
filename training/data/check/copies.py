"""Repeated files, images and parts, within the training set or between training and test."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from flows.fastflow.calibration.images_per_part import is_single_image, parts_or_single_images
from flows.fastflow.files.listing import join_first
from training.data.check.findings import DataFinding
from training.data.check.image_statistics import NamedStatistics
from training.data.check.near_duplicates import LIMIT, NeighbourDistances, nearest_in_training

_MAX_NAMES = 5  # in a message; a finding lists all


def copies(
    train: Sequence[NamedStatistics], test: Sequence[NamedStatistics], near: NeighbourDistances
) -> list[DataFinding]:
    """Find leaks, equal files and near-duplicates.

    Equal files are reported once, and not as near-duplicates too.
    """
    return [*_leaks(train, test, near), *_same_files(train), *_same_files(test), *_within(train, near)]


def same_parts(
    train: Sequence[Path], parts: Sequence[str], test: Sequence[Path], folder: Path
) -> list[DataFinding]:
    """Find test images that show a part of the training images, by their names: results on them flatter.

    Args:
        parts: the part in each training image.
        test: the good test images.
        folder: the category's folder, with a parts.txt.
    """
    # The names of test images may not match.
    test_parts = parts_or_single_images([path.name for path in test], folder)
    if test_parts is None:
        return []
    first = dict(reversed([*zip(parts, train, strict=True)]))
    twins = [
        (path, first[part])
        for path, part in zip(test, test_parts, strict=True)
        if part in first and not is_single_image(part)
    ]
    named = [(a.relative_to(folder).as_posix(), b.relative_to(folder).as_posix()) for a, b in twins]
    return [_leak(a, b, f"{a} and {b} show the same part, as their names tell", 0.0) for a, b in named]


def _same_files(images: Sequence[NamedStatistics]) -> list[DataFinding]:
    by_content: dict[str, list[str]] = {}
    for name, image in images:
        by_content.setdefault(image.sha256, []).append(name)
    return [
        DataFinding(
            kind="duplicate",
            files=names,
            message=f"{join_first(names, _MAX_NAMES, ' = ')}, byte for byte",
            measure=0.0,
        )
        for names in by_content.values()
        if len(names) > 1
    ]


def _within(train: Sequence[NamedStatistics], near: NeighbourDistances) -> list[DataFinding]:
    """Group training images linked by small distances; one finding per group, the closest first."""
    pairs = [(i, j, r) for i, j, r in near.pairs if train[i][1].sha256 != train[j][1].sha256]
    rows, columns, _ = zip(*pairs, strict=True) if pairs else ((), (), ())
    links = coo_array((np.ones(len(pairs)), (rows, columns)), (len(train), len(train)))
    group = connected_components(links, directed=False)[1].tolist()
    closest: dict[int, float] = {}
    for i, _, ratio in pairs:
        closest[group[i]] = min(ratio, closest.get(group[i], ratio))
    members: dict[int, list[str]] = {}
    for number, (name, _) in zip(group, train, strict=True):
        members.setdefault(number, []).append(name)
    return [
        DataFinding(
            kind="near_duplicate",
            files=members[first],
            message=f"{join_first(members[first], _MAX_NAMES, ' ~ ')} (distance {ratio:.2f} of the usual)",
            measure=ratio,
        )
        for first, ratio in sorted(closest.items(), key=lambda item: item[1])
    ]


def _leaks(
    train: Sequence[NamedStatistics], test: Sequence[NamedStatistics], near: NeighbourDistances
) -> list[DataFinding]:
    """Find test images that show what a training image shows, the closest first: results flatter."""
    if not test:
        return []
    index, ratio = nearest_in_training(
        np.stack([p.thumbnail for _, p in test]), np.stack([p.thumbnail for _, p in train]), near.usual
    )
    by_content = {p.sha256: name for name, p in reversed(train)}
    findings = []
    for (name, image), i, r in zip(test, index, ratio, strict=True):
        if (same := by_content.get(image.sha256)) is not None:
            findings.append(_leak(name, same, f"{name} = {same}, byte for byte", 0.0))
        elif r <= LIMIT:
            twin = train[int(i)][0]
            findings.append(_leak(name, twin, f"{name} ~ {twin} (distance {r:.2f} of the usual)", float(r)))
    return sorted(findings, key=lambda f: f.measure or 0.0)


def _leak(name: str, twin: str, message: str, ratio: float) -> DataFinding:
    return DataFinding(kind="leak", files=[name, twin], message=message, measure=ratio)
