"""The data check: what is wrong with the images of a category, told before a training run is spent on them.

Nothing is changed and nothing is left out because of it. Test images are looked at only where that is
asked for, and only to be told about.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.fastflow.calibration.parts import number_by_appearance, parts_from_names
from flows.fastflow.config import MAX_SAMPLE_BITS
from training.data import layout
from training.data.check.consistency import odd_bits, odd_colours, odd_light, odd_sizes, sizes
from training.data.check.copies import copies, same_parts
from training.data.check.findings import TITLES, DataCheck, DataFinding, Severity, within
from training.data.check.image_statistics import ImageStatistics, UndecodableImage, read_statistics
from training.data.check.mask_files import check_masks
from training.data.check.near_duplicates import NeighbourDistances, neighbours
from training.data.check.outliers import LIMIT, MIN_IMAGES, deviations, neighbour_distances
from training.data.check.unused_images import passed_over
from training.data.sample import DatasetError, NoTestImagesError, Sample
from training.terminal.progress import Silent

Stage = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
_UNSEEN: Stage = Silent().stage


def check_data(
    data: Path,
    category: str,
    *,
    test: bool = True,
    threads: int = 2,
    sample_bits: int = MAX_SAMPLE_BITS,
    stage: Stage = _UNSEEN,
) -> DataCheck:
    """Look at every image of a category and say what deserves a second look.

    Args:
        data: the data folder.
        category: the category's folder in it.
        test: look at test images and masks as well.
        threads: images decoded at a time.
        sample_bits: of the run, see `images.decode`.
        stage: shows a bar, as `Progress.stage` of a run does.

    Raises:
        DatasetError: there are no training images, or the layout is not known.
        PartsError: the category's parts.txt cannot be used.
    """
    begun = time.monotonic()
    folder = data / category
    paths = layout.train_images(data, category)
    parts = parts_from_names([path.name for path in paths], folder)
    samples, masks, no_test, elsewhere = _test_set(data, category) if test else ([], [], None, False)
    with stage("check", len(paths) + len(samples)) as advance:
        every = [*paths, *(s.path for s in samples)]
        looked = read_statistics(every, threads=threads, advance=advance, sample_bits=sample_bits)

    def named(images: Sequence[ImageStatistics]) -> list[tuple[str, ImageStatistics]]:
        return [(p.path.relative_to(folder).as_posix(), p) for p in images]

    rows = [i for i, p in enumerate(looked[: len(paths)]) if isinstance(p, ImageStatistics)]
    train = [p for p in looked[: len(paths)] if isinstance(p, ImageStatistics)]
    tested = [p for p in looked[len(paths) :] if isinstance(p, ImageStatistics)]
    findings = _undecodable(looked[: len(paths)], folder, stops=True)
    findings += _undecodable(looked[len(paths) :], folder, stops=False)
    if train:
        everything = named([*train, *tested])
        # A defective part may well be dark.
        good = {s.path for s in samples if s.defect is None}
        findings += odd_bits(everything, sample_bits)
        findings += odd_light(train, named([*train, *(p for p in tested if p.path in good)]))
        findings += odd_sizes(train, everything) + odd_colours(train, everything)
    first = dict(reversed([*zip((p.sha256 for p in train), rows, strict=True)])).values()
    shown = np.arange(len(train)) if parts is None else number_by_appearance([parts[i] for i in rows])
    if len(np.unique(shown)) > 1:
        near = neighbours(np.stack([p.thumbnail for p in train]), shown)
        findings += _outliers(named(train), shown, near)
        findings += copies(named(train), named(tested), near)
    if parts is not None:
        leaked = {finding.files[0] for finding in findings if finding.kind == "leak"}
        by_part = same_parts(paths, parts, [s.path for s in samples if s.defect is None], folder)
        findings += [finding for finding in by_part if finding.files[0] not in leaked]
    # Why there are no test images may be that they lie elsewhere.
    others = [*(s.path for s in samples), *masks] if samples or elsewhere else None
    findings += passed_over(folder, paths, others)
    images = {p.path: p for p in [*train, *tested]}
    findings += check_masks(samples, masks, paths, images, folder, threads=threads)
    order = list(TITLES)
    return DataCheck(
        category=category,
        layout=layout.find(data, category).NAME,
        train=len(paths),
        parts=None if parts is None else len(set(parts)),
        different=len({parts[i] for i in first} if parts is not None else first),
        test=len(samples) or None,
        no_test=no_test,
        masks=len(masks),
        sizes=sizes(train),
        seconds=round(time.monotonic() - begun, 2),
        findings=sorted(findings, key=lambda f: (order.index(f.kind), f.severity)),
    )


def _test_set(data: Path, category: str) -> tuple[list[Sample], list[Path], str | None, bool]:
    """The test images and masks, or why there are none, and whether they may lie where none are looked for.

    A category without them can be learned all the same.
    """
    try:
        return layout.test_samples(data, category), layout.masks(data, category), None, False
    except DatasetError as error:
        return [], [], within(str(error), data), isinstance(error, NoTestImagesError)


def _undecodable(
    looked: Sequence[ImageStatistics | UndecodableImage], folder: Path, *, stops: bool
) -> list[DataFinding]:
    findings = []
    for one in looked:
        if isinstance(one, UndecodableImage):
            name = one.path.relative_to(folder).as_posix()
            severity: Severity = "error" if stops else "warning"
            findings.append(
                DataFinding(
                    kind="undecodable", severity=severity, files=[name], message=f"{name}: {one.reason}"
                )
            )
    return findings


def _outliers(
    train: Sequence[tuple[str, ImageStatistics]], parts: NDArray[np.int64], near: NeighbourDistances
) -> list[DataFinding]:
    """Good images unlike the others, the strangest first, by what tells them most apart."""
    if len(train) < MIN_IMAGES:
        return []
    statistics = np.stack([p.statistics for _, p in train])
    ways = {
        "what is where": deviations(near.fifth),
        # A grey level, or 5 % of an edge's strength.
        "light, colour and sharpness": deviations(neighbour_distances(statistics, least=1.0, parts=parts)),
    }
    findings = []
    for i, (name, _) in enumerate(train):
        way = max(ways, key=lambda w: ways[w][i])
        if (deviation := float(ways[way][i])) > LIMIT:
            findings.append(
                DataFinding(
                    kind="outlier",
                    severity="warning",
                    files=[name],
                    message=f"{name} is {deviation:.1f} deviations from the others by {way}",
                    measure=deviation,
                )
            )
    return sorted(findings, key=lambda f: -(f.measure or 0))
