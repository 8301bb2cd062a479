"""From held-out good pictures to thresholds, with the very code that will serve."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from flows.fastflow.conformal import threshold
from flows.fastflow.images import read
from flows.fastflow.manifest import Calibration, ThresholdRecord
from flows.fastflow.scorer import Scorer


@dataclass(frozen=True)
class Calibrated:
    """What calibration finds.

    Attributes:
        calibration: as recorded in the bundle.
        threshold: for the image score, with what it certifies.
        scores: of the pictures, in their order.
    """

    calibration: Calibration
    threshold: ThresholdRecord
    scores: list[float]


def calibrate(
    scorer: Scorer, paths: Sequence[Path], target_fpr: float, advance: Callable[[int], None]
) -> Calibrated:
    """Score held-out good pictures and set the thresholds by split conformal prediction.

    The image threshold keeps the false-reject rate at most `target_fpr`, if there are enough pictures. The
    pixel threshold does the same for the largest value of a map: a good part shows no pixel above it but in
    that share of cases.

    Args:
        scorer: the fitted model.
        paths: good pictures that the fit never saw.
        target_fpr: share of good parts that may be rejected.
        advance: called with 1 after every picture.

    Raises:
        ImageError: a picture cannot be read; it is named.
    """
    scores: list[float] = []
    peaks: list[float] = []
    medians: list[float] = []
    statistics: list[list[float]] = []
    for path in paths:
        # One at a time, as a part on the line comes.
        [scored] = scorer.score([read(path)])
        scores.append(scored.score)
        peaks.append(float(scored.score_map.max()))
        medians.append(float(np.median(scored.score_map)))
        statistics.append(list(scored.statistics))
        advance(1)
    order = np.argsort(scores, kind="stable")
    return Calibrated(
        calibration=Calibration(
            scores=[scores[i] for i in order],
            statistics=[statistics[i] for i in order],
            map_typical=float(np.median(medians)),
            map_threshold=threshold(peaks, target_fpr).reject,
        ),
        threshold=ThresholdRecord(**asdict(threshold(scores, target_fpr))),
        scores=scores,
    )
