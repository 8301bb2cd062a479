"""Is one fit better than another, or were the test pictures kind to it? Differences with their intervals.

    python -m bench.paired --data DATA --category CATEGORY --one MODELS ... --other MODELS ...

Each MODELS is a models folder, say of one seed; its active version scores the test pictures. Told are, of
image AUROC, pixel AUROC and AUPRO (to 30 % of false positives), the mean over the folders of each side, their
difference, and the interval in which it lies for 95 % of test sets drawn from these pictures (the bootstrap:
good and defective ones drawn with replacement, as many as there are; Efron and Tibshirani 1993, chapter 13).
Both sides see the same draws, so what makes a picture hard for both cancels. What another seed would change
is not in the interval; the range over the folders beside it shows some of it. Pictures of one part are drawn
apart, so where parts have several the interval is too narrow. Writes
bench-results/paired.json and .md.

Pixels are counted in 4,096 classes by their rank, a draw being a sum of counts: figures differ from the exact
ones of `flowgauge evaluate` by less than 0.0005.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from bench.flows.comparison import table
from flows.fastflow.detector import Detector
from flows.fastflow.images import read
from flows.fastflow.models_folder import resolve
from training.assessment import each_once, hashes_of
from training.datasets.layout import test_samples
from training.measurement import read_truth
from training.progress import ConsoleProgress

FIGURES = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro": "AUPRO"}
CLASSES = 4096
_LIMIT = 0.3  # of the false-positive rate, for AUPRO
_AT_ONCE = 64  # draws whose counts are summed together: memory
_RESULTS = Path("bench-results")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Counts:
    """What a model says of N test pictures, so that a draw of them is a sum.

    Attributes:
        defective: (N,), whether each is.
        scores: (N,).
        good: (N, classes), the good pixels of each picture, from the least anomalous class to the most.
        bad: (N, classes), the defective ones.
        regions: (N, classes), of each picture's defects the share of their pixels, summed.
        n_regions: (N,), how many defects.
    """

    defective: NDArray[np.bool_]
    scores: Floats
    good: Floats
    bad: Floats
    regions: Floats
    n_regions: Floats


def main() -> None:
    """Score, draw and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--category", required=True)
    parser.add_argument("--one", type=Path, nargs="+", required=True, metavar="MODELS")
    parser.add_argument("--other", type=Path, nargs="+", required=True, metavar="MODELS")
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=_RESULTS)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    one, other = (
        [look(options.data, options.category, models) for models in side]
        for side in (options.one, options.other)
    )
    found = compare(one, other, options.draws)
    text = report(options.category, found)
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "paired.md").write_text(text)
    (options.out / "paired.json").write_text(json.dumps(found, indent=1) + "\n")


def look(data: Path, category: str, models: Path) -> Counts:
    """Let the active version of a models folder score the test pictures.

    Raises:
        BundleError, DatasetError, ImageError: the model or pictures cannot be read; they are named.
    """
    detector = Detector.load(resolve(models, category))
    every = test_samples(data, category)
    samples = each_once(every, hashes_of(every))
    scores, maps, masks = [], [], []
    progress = ConsoleProgress(Console(stderr=True))
    with progress.stage(f"{models}: score", len(samples)) as advance:
        for sample in samples:
            image = read(sample.path, sample_bits=detector.manifest.sample_bits)
            [found] = detector.predict([image])
            height, width = found.score_map.shape
            mask = read_truth(sample, (image.shape[0], image.shape[1]), (height, width))
            known = sample.defect is None or bool(mask.any())
            scores.append(found.score)
            maps.append(found.score_map.ravel() if known else np.empty(0, np.float32))
            masks.append(mask)
            advance(1)
    defective = np.array([sample.defect is not None for sample in samples])
    return count(defective, np.array(scores), maps, masks)


def count(
    defective: NDArray[np.bool_],
    scores: Floats,
    maps: Sequence[NDArray[np.float32]],
    masks: Sequence[NDArray[np.bool_]],
) -> Counts:
    """Count what a model gave.

    Args:
        defective: (N,), whether each picture is.
        scores: (N,).
        maps: of each picture its pixels, (H W,); none where it is not known which of them are defective.
        masks: of each picture (H, W), True where it is defective.
    """
    edges = np.unique(np.quantile(np.concatenate(maps), np.arange(1, CLASSES) / CLASSES))
    good, bad, regions = (np.zeros((len(maps), CLASSES)) for _ in range(3))
    n_regions = np.zeros(len(maps))
    for i, (pixels, mask) in enumerate(zip(maps, masks, strict=True)):
        if not len(pixels):
            continue
        classes = np.searchsorted(edges, pixels, side="right")
        n, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        flat = labels.ravel()
        good[i] = np.bincount(classes[flat == 0], minlength=CLASSES)
        bad[i] = np.bincount(classes[flat > 0], minlength=CLASSES)
        of_region = np.bincount(flat, minlength=n)
        shares = 1 / of_region[flat[flat > 0]]
        regions[i] = np.bincount(classes[flat > 0], weights=shares, minlength=CLASSES)
        n_regions[i] = n - 1
    return Counts(defective, scores, good, bad, regions, n_regions)


def figures(counts: Counts, weights: Floats) -> dict[str, Floats]:
    """The figures of draws.

    Args:
        counts: of a model.
        weights: (draws, N), how often each picture was drawn.

    Returns:
        (draws,) of each of `FIGURES`; those of pixels only where there are defective ones.
    """
    of_good, of_bad = weights[:, ~counts.defective], weights[:, counts.defective]
    above = counts.scores[counts.defective][:, None] - counts.scores[~counts.defective][None]
    wins = (np.sign(above) + 1) / 2
    pairs = of_good.sum(1) * of_bad.sum(1)
    found = {"image_auroc": ((of_bad @ wins) * of_good).sum(1) / pairs}
    if not counts.n_regions.any():
        return found
    rates = [_from_the_top(weights @ part) for part in (counts.good, counts.bad, counts.regions)]
    false, true, overlap = rates
    found["pixel_auroc"] = _areas(false, true)
    # Up to the limit, and of the class that it lies in what is before it.
    inside = np.minimum(false, _LIMIT)
    step = np.diff(false, axis=1)
    reached = np.divide(np.diff(inside, axis=1), step, out=np.ones_like(step), where=step > 0)
    ends = overlap[:, :-1] + reached * np.diff(overlap, axis=1)
    found["aupro"] = (np.diff(inside, axis=1) * (overlap[:, :-1] + ends) / 2).sum(1) / _LIMIT
    return found


def _from_the_top(sums: Floats) -> Floats:
    """Shares at or above the beginning of each class, (draws, classes + 1), from 0 to 1."""
    rising = np.cumsum(sums[:, ::-1], axis=1)
    with np.errstate(
        invalid="ignore"
    ):  # of a draw without a masked defect it is no number, and does not count
        shares = rising / rising[:, -1:]
    return np.concatenate([np.zeros((len(sums), 1)), shares], 1)


def _areas(x: Floats, y: Floats) -> Floats:
    areas: Floats = (np.diff(x, axis=1) * (y[:, 1:] + y[:, :-1]) / 2).sum(1)
    return areas


def compare(one: Sequence[Counts], other: Sequence[Counts], draws: int, seed: int = 0) -> dict[str, Any]:
    """Differences of the means of two sides, with their intervals.

    Args:
        one, other: models that scored the same test pictures.
        draws: how many test sets are drawn.
        seed: of the draws.

    Returns:
        By figure: `one` and `other`, of each model; `difference` of their means, and its `interval`.

    Raises:
        ValueError: they scored other pictures, or there are no good or no defective ones.
    """
    first = one[0].defective
    for counts in (*one, *other):
        if not np.array_equal(counts.defective, first):
            raise ValueError("the models scored other test pictures")
        if not np.array_equal(counts.n_regions > 0, one[0].n_regions > 0):
            # A mask that is reduced to a smaller map may be of nothing.
            raise ValueError("the models' maps show defects of other pictures: compare maps of one size")
    if first.all() or not first.any():
        raise ValueError("differences need good and defective test pictures")
    everything = np.ones((1, len(first)))
    sides = [[figures(counts, everything) for counts in side] for side in (one, other)]
    names = list(sides[0][0])
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[Floats]] = {name: [] for name in names}
    for start in range(0, draws, _AT_ONCE):
        weights = _drawn(rng, first, min(_AT_ONCE, draws - start))
        of_sides = [[figures(counts, weights) for counts in side] for side in (one, other)]
        for name in names:
            means = [np.mean([found[name] for found in side], axis=0) for side in of_sides]
            drawn[name].append(means[0] - means[1])
    result = {}
    for name in names:
        values = [[float(found[name][0]) for found in side] for side in sides]
        low, high = np.nanquantile(np.concatenate(drawn[name]), [0.025, 0.975])
        result[name] = {
            "one": values[0],
            "other": values[1],
            "difference": float(np.mean(values[0]) - np.mean(values[1])),
            "interval": [float(low), float(high)],
        }
    return result


def _drawn(rng: np.random.Generator, defective: NDArray[np.bool_], draws: int) -> Floats:
    """How often each picture is in each of so many test sets, (draws, N)."""
    weights = np.zeros((draws, len(defective)))
    for kind in (False, True):
        n = int((defective == kind).sum())
        weights[:, defective == kind] = rng.multinomial(n, np.full(n, 1 / n), size=draws)
    return weights


def report(category: str, found: dict[str, Any]) -> str:
    """The table, as markdown."""
    rows = []
    for name, of_one in found.items():
        low, high = of_one["interval"]
        said = "one" if low > 0 else "the other" if high < 0 else "neither"
        sides = [_mean_and_range(of_one[side]) for side in ("one", "other")]
        rows.append(
            [FIGURES[name], *sides, f"{of_one['difference']:+.4f}", f"{low:+.4f} to {high:+.4f}", said]
        )
    head = [category, "one", "the other", "difference", "of 95 % of draws", "better"]
    return table(head, rows) + "\n"


def _mean_and_range(values: Sequence[float]) -> str:
    mean = f"{np.mean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.4f} to {max(values):.4f})"


if __name__ == "__main__":
    main()
