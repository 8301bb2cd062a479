"""Scores and decisions of a version on a test set."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.fastflow.calibration.calibrator import Calibrator, Decision
from flows.fastflow.detector import Detector
from flows.fastflow.files.listing import indent_first
from flows.fastflow.imaging.decoder import read_image
from flows.fastflow.imaging.image_errors import ImageError
from training.data.check.image_statistics import make_thumbnail
from training.data.masks import read_mask
from training.data.sample import DatasetError, Sample
from training.evaluation.metrics.image_metrics import image_auroc
from training.evaluation.operating_points import OperatingPoint, operating_points
from training.evaluation.ranking import RankingFigures, RankingMetrics

_MAX_ERRORS = 20  # in a message


@dataclass(frozen=True)
class ScoredSample:
    """A test image with the model's score and decision."""

    sample: Sample
    score: float
    p_value: float
    decision: Decision

    @property
    def path(self) -> Path:
        """The image file."""
        return self.sample.path

    @property
    def defect(self) -> str | None:
        """The true kind of defect, the first of several; None for a good part."""
        return self.sample.defect


@dataclass(frozen=True)
class DefectFigures:
    """Results of one kind of defect: its count, image AUROC against all good parts, and recall."""

    count: int
    image_auroc: float | None
    recall: float


@dataclass(frozen=True)
class Reviews:
    """Shares of parts in the review band, which a person decides.

    Attributes:
        review_fpr: share of good parts that may be rejected or reviewed.
        threshold: a score above it that is not rejected is reviewed.
        good: share of good parts in the band; None without good parts.
        defective: share of defective parts in the band; None without defective parts.
    """

    review_fpr: float
    threshold: float
    good: float | None
    defective: float | None


@dataclass(frozen=True)
class FlowAlone:
    """Results without the part learned from reviewed defects.

    Attributes:
        defects: number of those defects.
        image_auroc: None without good or defective parts.
        recall: share of defective parts above the threshold of the flow alone; None in other precisions
            than float32, or without defective parts.
    """

    defects: int
    image_auroc: float | None
    recall: float | None


@dataclass(frozen=True)
class Evaluation:
    """Results on a test set.

    Attributes:
        figures: ranking metrics of scores and maps.
        false_rejects: share of good parts rejected; None without good parts.
        escapes: share of defective parts passed; None without defective parts.
        recall: share of defective parts rejected; None without defective parts.
        reviews: shares in the review band; None without a band.
        defects: results by kind of defect, in the order of their first appearance.
        operating_points: results of thresholds for other rates, rates ascending.
        independent: True if each image shows another part; otherwise intervals of shares are not known.
        milliseconds: median time of the model for an image, without reading and measuring.
        flow_alone: results without the learned part; None for a version without one.
    """

    rows: list[ScoredSample]
    figures: RankingFigures
    false_rejects: float | None
    escapes: float | None
    recall: float | None
    reviews: Reviews | None
    defects: dict[str, DefectFigures]
    operating_points: list[OperatingPoint]
    independent: bool
    milliseconds: float
    flow_alone: FlowAlone | None = None


def require_usable(
    samples: Sequence[Sample], threads: int, advance: Callable[[int], None], sample_bits: int
) -> NDArray[np.uint8]:
    """Read every test image and mask once, so that unusable ones are reported before hours of scoring.

    Returns:
        (N, 64, 64) thumbnails of the images.

    Raises:
        DatasetError: with every image and mask that cannot be read or has another size.
    """

    def read_thumbnail(sample: Sample) -> NDArray[np.uint8] | str:
        try:
            image = read_image(sample.path, sample_bits=sample_bits)
            height, width, _ = image.shape
            for mask in chain(*sample.masks.values()):
                read_mask(mask, (height, width))
        except (ImageError, DatasetError, OSError) as error:
            return str(error)
        return make_thumbnail(image)

    errors, thumbnails = [], []
    with ThreadPoolExecutor(threads) as pool:
        for result in pool.map(read_thumbnail, samples):
            if isinstance(result, str):
                errors.append(result)
            else:
                thumbnails.append(result)
            advance(1)
    if errors:
        listed = "\n".join(indent_first(errors, _MAX_ERRORS))
        raise DatasetError(
            f"{len(errors)} test images or masks cannot be used; repair them or take them away:\n{listed}"
        )
    return np.stack(thumbnails)


def score_test_set(
    detector: Detector, samples: Sequence[Sample], advance: Callable[[int], None], *, independent: bool = True
) -> Evaluation:
    """Score every test image, decide by the bundle's own calibration, and compare with the truth.

    Args:
        independent: True if each image shows another part.

    Raises:
        ImageError, DatasetError: an image or mask cannot be read or has another size; it is named.
    """
    rows: list[ScoredSample] = []
    seconds: list[float] = []
    learned: list[float] = []
    ranking = RankingMetrics()
    for sample in samples:
        image = read_image(sample.path, sample_bits=detector.manifest.sample_bits)
        prepared = detector.prepare(image)  # outside the timing, as for the models of a comparison
        start = time.perf_counter()
        [prediction] = detector.predict_prepared([prepared])
        seconds.append(time.perf_counter() - start)
        learned.append(prediction.learned_part)
        rows.append(ScoredSample(sample, prediction.score, prediction.p_value, prediction.decision))
        ranking.add(sample, (image.shape[0], image.shape[1]), prediction.score, prediction.score_map)
        advance(1)
    good = [row for row in rows if row.defect is None]
    defective = [row for row in rows if row.defect is not None]
    return Evaluation(
        rows=rows,
        figures=ranking.compute(),
        false_rejects=_share(good, "REJECT"),
        escapes=_share(defective, "PASS"),
        recall=_share(defective, "REJECT"),
        reviews=_reviews(detector.calibrator, good, defective),
        defects=_by_defect(rows),
        operating_points=operating_points(
            detector.calibrator,
            [row.score for row in rows],
            [row.defect is not None for row in rows],
            independent=independent,
        ),
        independent=independent,
        milliseconds=1000 * float(np.median(seconds)),
        flow_alone=_flow_alone(detector, rows, learned),
    )


def _share(rows: Sequence[ScoredSample], decision: Decision) -> float | None:
    return sum(row.decision == decision for row in rows) / len(rows) if rows else None


def _flow_alone(
    detector: Detector, rows: Sequence[ScoredSample], learned: Sequence[float]
) -> FlowAlone | None:
    record = detector.manifest.learned
    if record is None:
        return None
    scores = [row.score - part for row, part in zip(rows, learned, strict=True)]
    truth = [row.defect is not None for row in rows]
    recall = None
    if any(truth) and detector.scorer.precision == "float32":
        found = [
            score > record.reject_before for score, is_defect in zip(scores, truth, strict=True) if is_defect
        ]
        recall = sum(found) / len(found)
    auroc = image_auroc(truth, scores) if any(truth) and not all(truth) else None
    return FlowAlone(record.defects, auroc, recall)


def _reviews(
    calibrator: Calibrator, good: Sequence[ScoredSample], defective: Sequence[ScoredSample]
) -> Reviews | None:
    rate, threshold = calibrator.review_fpr, calibrator.default_thresholds.review
    if rate is None or threshold is None:
        return None
    return Reviews(rate, threshold, _share(good, "REVIEW"), _share(defective, "REVIEW"))


def _by_defect(rows: Sequence[ScoredSample]) -> dict[str, DefectFigures]:
    good = [row.score for row in rows if row.defect is None]
    results = {}
    for defect in dict.fromkeys(kind for row in rows for kind in row.sample.masks if kind is not None):
        of_kind = [row for row in rows if defect in row.sample.masks]
        truth = [False] * len(good) + [True] * len(of_kind)
        results[defect] = DefectFigures(
            count=len(of_kind),
            image_auroc=image_auroc(truth, good + [row.score for row in of_kind]) if good else None,
            recall=_share(of_kind, "REJECT") or 0.0,
        )
    return results
