"""Files, images and parts that are there more than once, in the training set or in training and test."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flows.fastflow.calibration.parts import is_single_image, parts_or_single_images
from flows.fastflow.files.listing import join_first
from training.data.check.findings import DataFinding
from training.data.check.image_statistics import ImageStatistics
from training.data.check.near_duplicates import LIMIT, NeighbourDistances, nearest_in_training

Named = tuple[str, ImageStatistics]

_SHOWN = 5  # of the names in a message; a finding lists all


def copies(train: Sequence[Named], test: Sequence[Named], near: NeighbourDistances) -> list[DataFinding]:
    """What is there more than once.

    Files that are the same byte for byte are told once, as that, and not as near-duplicates too.

    Args:
        train: the training images with their names.
        test: the test images with their names.
        near: the distances between the training images.
    """
    return [
        *_leaks(train, test, near),
        *_same_files(train),
        *_same_files(test),
        *_within(train, near),
    ]


def same_parts(
    train: Sequence[Path], parts: Sequence[str], test: Sequence[Path], folder: Path
) -> list[DataFinding]:
    """Test images of parts of which there are training images, as names tell: figures on them flatter.

    Args:
        train: the training images.
        parts: which part each of them shows.
        test: the good test images.
        folder: the category's, which has a parts.txt.
    """
    asked = parts_or_single_images([path.name for path in test], folder)  # names of test images need not tell
    if asked is None:
        return []
    first = dict(reversed([*zip(parts, train, strict=True)]))
    twins = [
        (path, first[part])
        for path, part in zip(test, asked, strict=True)
        if part in first and not is_single_image(part)
    ]
    named = [(a.relative_to(folder).as_posix(), b.relative_to(folder).as_posix()) for a, b in twins]
    return [_leak(a, b, f"{a} and {b} show the same part, as their names tell", 0.0) for a, b in named]


def _same_files(images: Sequence[Named]) -> list[DataFinding]:
    by_content: dict[str, list[str]] = {}
    for name, image in images:
        by_content.setdefault(image.sha256, []).append(name)
    return [
        DataFinding(
            kind="duplicate",
            severity="warning",
            files=names,
            message=f"{join_first(names, _SHOWN, ' = ')}, byte for byte",
            measure=0.0,
        )
        for names in by_content.values()
        if len(names) > 1
    ]


def _within(train: Sequence[Named], near: NeighbourDistances) -> list[DataFinding]:
    """Groups of training images that are linked by being near, each told once; the closest group first."""
    group = list(range(len(train)))

    def head(i: int) -> int:
        while group[i] != i:
            group[i] = group[group[i]]
            i = group[i]
        return i

    closest: dict[int, float] = {}
    pairs = [(i, j, r) for i, j, r in near.pairs if train[i][1].sha256 != train[j][1].sha256]
    for i, j, _ in pairs:
        group[head(j)] = head(i)
    for i, _, ratio in pairs:
        closest[head(i)] = min(ratio, closest.get(head(i), ratio))
    members: dict[int, list[str]] = {}
    for i, (name, _) in enumerate(train):
        members.setdefault(head(i), []).append(name)
    return [
        DataFinding(
            kind="near_duplicate",
            severity="warning",
            files=members[top],
            message=f"{join_first(members[top], _SHOWN, ' ~ ')} (distance {ratio:.2f} of the usual)",
            measure=ratio,
        )
        for top, ratio in sorted(closest.items(), key=lambda item: item[1])
    ]


def _leaks(train: Sequence[Named], test: Sequence[Named], near: NeighbourDistances) -> list[DataFinding]:
    """Test images that show what a training image shows, the closest first: figures on them flatter."""
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
    return DataFinding(kind="leak", severity="warning", files=[name, twin], message=message, measure=ratio)
