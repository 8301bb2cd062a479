"""The charts of a version's report."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from flows.fastflow.calibration.conformal import ConformalThreshold, false_reject_band
from training.evaluation.report.chart import XYChart, padded
from training.evaluation.scoring import Evaluation

_BINS = 40
# Colours of good parts, defective parts and others.
GOOD, DEFECT, OTHER = 1, 2, 3


def loss_chart(epochs: Sequence[Mapping[str, Any]]) -> XYChart | None:
    """Draw the loss by epoch, mean over scales, of fitted, held-out and validation images."""
    if not epochs:
        return None
    x = [float(row["epoch"]) for row in epochs]
    fitted = [float(np.mean(row["fit_nll"])) for row in epochs]
    held_out = [float(np.mean(row["held_out_nll"])) for row in epochs]
    validation = [float(np.mean(row["validation_nll"])) for row in epochs if row["validation_nll"]]
    chart = XYChart(
        "Fit",
        "epoch",
        "nats per dimension",
        (min(x[0], 1), max(x[-1], 2)),
        padded(fitted + held_out + validation),
        note="Negative log-likelihood, mean over the scales; lower is better. The fit is the mean over an "
        "epoch, held-out images are measured at its end, so they may lie below it.",
        whole=True,
    )
    chart.line("fit", x, fitted, OTHER)
    chart.line("held out", x, held_out, GOOD, dashed=True)
    if len(validation) == len(x):
        chart.line("chose the epoch", x, validation, DEFECT, dashed=True)
    return chart


def histogram_chart(evaluation: Evaluation, threshold: ConformalThreshold) -> XYChart:
    """Draw histograms of the scores of good and of defective test images, as shares of each kind."""
    good, defective = _scores(evaluation)
    everything = np.concatenate([good, defective, [threshold.reject]])
    edges = np.linspace(*padded(everything), _BINS + 1)
    kinds = [
        (f"{name} ({len(scores)})", np.histogram(scores, edges)[0] / len(scores), colour)
        for name, scores, colour in (("good", good, GOOD), ("defective", defective, DEFECT))
        if len(scores)
    ]
    top = max(float(shares.max()) for _, shares, _ in kinds)
    chart = XYChart(
        "Scores",
        "image score",
        "share of its kind",
        (float(edges[0]), float(edges[-1])),
        (0.0, top * 1.08),
        percent="y",
        note="Right of the threshold a part is rejected.",
    )
    for name, shares, colour in kinds:
        chart.bars(name, edges, shares, colour)
    chart.rule(f"threshold {threshold.reject:.3f}", threshold.reject)
    return chart


def roc_chart(evaluation: Evaluation) -> XYChart | None:
    """Draw the ROC curve of images and, if there are masks, of pixels."""
    figures = evaluation.figures
    if figures.image_auroc is None:
        return None
    chart = XYChart(
        "ROC",
        "share of the good called defective",
        "share of the defective found",
        (0.0, 1.0),
        (0.0, 1.0),
        percent="xy",
    )
    good, defective = _scores(evaluation)
    truth = np.repeat([False, True], [len(good), len(defective)])
    fpr, tpr, _ = roc_curve(truth, np.concatenate([good, defective]))
    chart.line("chance", [0, 1], [0, 1], 0, dashed=True)
    chart.line(f"images, area {figures.image_auroc:.3f}", fpr, tpr, GOOD)
    if figures.pixels:
        curves = figures.pixels.curves
        chart.line(f"pixels, area {figures.pixels.auroc:.3f}", curves.fpr, curves.tpr, DEFECT)
    return chart


def pro_chart(evaluation: Evaluation) -> XYChart | None:
    """Draw the per-region overlap up to 30 % of false-positive pixels, the limit of AUPRO."""
    pixels = evaluation.figures.pixels
    if pixels is None:
        return None
    chart = XYChart(
        "Per-region overlap",
        "share of the good pixels called defective",
        "mean share of a region found",
        (0.0, 0.3),
        (0.0, 1.0),
        percent="xy",
        note=f"{pixels.regions} defective regions, each of the same weight whatever its size. AUPRO is the "
        "area up to a limit, divided by the limit.",
    )
    curves = pixels.curves
    inside = curves.fpr <= 0.3 + 1e-9
    chart.band("", curves.fpr[inside], np.zeros(int(inside.sum())), curves.pro[inside], DEFECT)
    chart.line(f"overlap, AUPRO {pixels.aupro[0.3]:.3f}", curves.fpr[inside], curves.pro[inside], DEFECT)
    chart.rule("limit 5 %", 0.05)
    return chart


def calibration_chart(evaluation: Evaluation, threshold: ConformalThreshold) -> XYChart | None:
    """Draw the observed false-reject rate by the requested one, with the band that chance allows."""
    p_values = np.sort([row.p_value for row in evaluation.rows if row.defect is None])
    if not len(p_values):
        return None
    # Below 1 / (n + 1) nothing is rejected: the band begins with the smallest p-value.
    n = threshold.n_calibration
    # Ranks of the calibration's scores, dense near the rates in use.
    ranks = np.unique(np.concatenate([np.geomspace(1, n, 60), np.linspace(1, n, 60)]).round())
    rates = ranks / (n + 1)
    seen = np.searchsorted(p_values, rates + 1e-12, side="right") / len(p_values)
    on = f"On {len(p_values)} good test images, calibrated on {n}"
    if evaluation.independent:
        note = (
            f"{on}. Where the line leaves the band above the diagonal, test images are not like those the "
            "threshold was made from."
        )
    else:
        note = f"{on}. Several of them show the same part, so the band that chance allows is not known."
    chart = XYChart(
        "Calibration", "asked false-reject rate", "rate seen", (0.0, 1.0), (0.0, 1.0), percent="xy", note=note
    )
    if evaluation.independent:
        bands = np.array([false_reject_band(n, len(p_values), float(a), 0.95) for a in rates])
        low, high = bands.T / len(p_values)
        chart.band("95 % of calibrations", rates, low, high, GOOD)
    chart.line("as promised", [0, 1], [0, 1], 0, dashed=True)
    chart.line("good test images", np.append(0, rates), np.append(0, seen), GOOD, steps=True)
    return chart


def distribution_chart(
    evaluation: Evaluation, calibration: NDArray[np.float64], threshold: ConformalThreshold
) -> XYChart:
    """Draw the cumulative scores of calibration images and of good test images."""
    good, _ = _scores(evaluation)
    values = np.concatenate([calibration, good, [threshold.reject]])
    chart = XYChart(
        "Good parts, then and now",
        "image score",
        "share at or below",
        padded(values),
        (0.0, 1.0),
        percent="y",
        note="The two lines lie close together where good test images are like the calibration images.",
    )
    for name, scores, colour in (
        (f"calibration ({len(calibration)})", calibration, OTHER),
        (f"good test images ({len(good)})", good, GOOD),
    ):
        if len(scores):
            ordered = np.sort(scores)
            x = np.concatenate([[chart.x_range[0]], ordered, [chart.x_range[1]]])
            y = np.concatenate([[0.0], np.arange(1, len(ordered) + 1) / len(ordered), [1.0]])
            chart.line(name, x, y, colour, steps=True, dashed=colour == OTHER)
    chart.rule(f"threshold {threshold.reject:.3f}", threshold.reject)
    return chart


def _scores(evaluation: Evaluation) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the scores of good and of defective images."""
    good = [row.score for row in evaluation.rows if row.defect is None]
    defective = [row.score for row in evaluation.rows if row.defect is not None]
    return np.array(good, dtype=np.float64), np.array(defective, dtype=np.float64)
