"""Recompute what FlowGauge reports, without FlowGauge's own metrics.

    flowgauge evaluate --data datasets/elpv --category solar_cell
    flowgauge serve
    python -m examples.trust_the_numbers --category solar_cell

Reads an evaluation (scores.csv, summary.json) and the calibration scores of the evaluated version
(manifest.json), and sends test images to the server. The exit code is 1 if a check fails. The tutorial is
docs/tutorials/trust-the-numbers.md.
"""

import argparse
import csv
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom
from sklearn.metrics import roc_auc_score

from app.client import Client, FlowGaugeError

Scores = NDArray[np.float64]
RATES = (0.01, 0.05, 0.1)
SPLITS = 10_000
# Between an evaluation and a server in float32, whatever engine each of them uses.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Check:
    """One comparison: what was compared, the figures, and whether they agree."""

    name: str
    found: str
    passed: bool


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation and its version have on disk.

    Attributes:
        rows: a row of scores.csv for each test image.
        summary: summary.json.
        threshold: of float32, as the manifest has it.
        calibration: scores of the held-out good images.
    """

    rows: Sequence[dict[str, str]]
    summary: dict[str, Any]
    threshold: dict[str, Any]
    calibration: Scores

    @property
    def scores(self) -> Scores:
        return np.array([float(row["score"]) for row in self.rows])

    @property
    def defective(self) -> NDArray[np.bool_]:
        return np.array([row["defect"] != "" for row in self.rows])


def read(evaluations: Path, models: Path, category: str) -> Evaluation:
    """Read the latest evaluation of a category."""
    found = sorted((evaluations / category).glob("*/summary.json"))
    if not found:
        raise ValueError(f"{evaluations / category} has no evaluation; flowgauge evaluate makes one")
    folder = found[-1].parent  # versions sort by time
    with (folder / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    manifest = json.loads((models / category / folder.name / "manifest.json").read_text())
    return Evaluation(
        rows=rows,
        summary=json.loads(found[-1].read_text()),
        threshold=manifest["thresholds"]["float32"],
        calibration=np.array(manifest["calibration"]["scores"]),
    )


def split_conformal(calibration: Scores, rate: float) -> tuple[float, float]:
    """The threshold for a false-reject rate, and the rate that it promises on average.

    With n scores the threshold is the l-th largest, l = floor(rate (n + 1)), at least the first. It promises
    l / (n + 1) for exchangeable scores.
    """
    n = len(calibration)
    # Rounded first: 0.29 * 100 is 28.999999999999996 in floating point.
    place = max(1, math.floor(round(rate * (n + 1), 9)))
    return float(np.sort(calibration)[n - place]), place / (n + 1)


def check_auroc(given: Evaluation) -> Check:
    """Image AUROC, by scikit-learn."""
    ours, theirs = given.summary["image_auroc"], roc_auc_score(given.defective, given.scores)
    found = f"scikit-learn {theirs:.6f}, summary.json {ours:.6f}"
    return Check("image AUROC", found, abs(ours - theirs) < 1e-9)


def check_threshold(given: Evaluation) -> Check:
    """The threshold and the promised rate, from the calibration scores."""
    threshold, promised = split_conformal(given.calibration, given.threshold["target_fpr"])
    recorded = given.threshold["reject"], given.threshold["achievable_fpr"]
    found = f"computed {threshold:.6f}, manifest.json {recorded[0]:.6f}; {promised:.2%} promised"
    return Check("threshold", found, (threshold, promised) == recorded)


def check_false_rejects(given: Evaluation) -> Check:
    """Rejected good test images, within what 99 % of calibration and test sets give."""
    good, n = given.scores[~given.defective], len(given.calibration)
    rejected = int((good > given.threshold["reject"]).sum())
    place = round(given.threshold["achievable_fpr"] * (n + 1))
    low, high = map(int, betabinom.interval(0.99, len(good), place, n + 1 - place))
    found = f"{rejected} of {len(good)} good test images; chance gives {low} to {high}"
    return Check("false rejects", found, low <= rejected <= high)


def check_repeated_splits(given: Evaluation, rate: float) -> Check:
    """Mean false-reject rate over random splits of all good scores that the fit has not seen."""
    unseen = np.concatenate([given.calibration, given.scores[~given.defective]])
    n, random = len(given.calibration), np.random.default_rng(0)
    rates = np.empty(SPLITS)
    for split in range(SPLITS):
        random.shuffle(unseen)
        threshold, promised = split_conformal(unseen[:n], rate)
        rates[split] = (unseen[n:] > threshold).mean()
    error = rates.std() / math.sqrt(SPLITS)
    low, high = np.quantile(rates, [0.05, 0.95])
    found = f"mean {rates.mean():.2%}, promised {promised:.2%}; 90 % of splits {low:.2%} to {high:.2%}"
    # Equal scores can only lower the rate.
    return Check(f"{SPLITS} splits at {rate:.0%}", found, rates.mean() < promised + 4 * error)


def check_served(given: Evaluation, client: Client, count: int) -> Iterator[Check]:
    """Scores, p-values and decisions of a running server, for test images at even distances."""
    count = min(count, len(given.rows))
    rows = [given.rows[i * len(given.rows) // count] for i in range(count)]
    category, version = given.summary["category"], given.summary["version"]
    answers = [client.inspect(category, Path(row["path"]), version=version, store=False) for row in rows]
    pairs = [(float(row["score"]), answer.score) for row, answer in zip(rows, answers, strict=True)]
    largest = max(abs(ours - served) / abs(ours) for ours, served in pairs)
    identical = sum(ours == served for ours, served in pairs)
    found = f"{identical} of {count} identical, largest relative difference {largest:.1e}"
    yield Check("served scores", found, largest < TOLERANCE)
    n = len(given.calibration)
    p_values = [(1 + (given.calibration >= answer.score).sum()) / (n + 1) for answer in answers]
    equal = sum(p == answer.p_value for p, answer in zip(p_values, answers, strict=True))
    yield Check("served p-values", f"{equal} of {count} equal the formula", equal == count)
    equal = sum(row["decision"] == answer.decision for row, answer in zip(rows, answers, strict=True))
    yield Check("served decisions", f"{equal} of {count} equal scores.csv", equal == count)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all checks and print a line for each; returns the exit code."""
    parser = argparse.ArgumentParser(description="Recompute what FlowGauge reports.")
    parser.add_argument("--category", required=True)
    parser.add_argument("--evaluations", type=Path, default=Path("evaluations"), help="of flowgauge evaluate")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--url", default=os.environ.get("FLOWGAUGE_URL", "http://127.0.0.1:8000"))
    parser.add_argument("--images", type=int, default=100, help="how many test images the server gets")
    options = parser.parse_args(arguments)
    try:
        given = read(options.evaluations, options.models, options.category)
        checks = [check_auroc(given), check_threshold(given), check_false_rejects(given)]
        checks += [check_repeated_splits(given, rate) for rate in RATES]
        with Client(options.url, os.environ.get("FLOWGAUGE_KEY")) as client:
            checks += check_served(given, client, options.images)
    except (FlowGaugeError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for check in checks:
        print(f"{'ok  ' if check.passed else 'FAIL'}  {check.name:<20}{check.found}")
    return 0 if all(check.passed for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
