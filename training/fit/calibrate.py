"""Calibration of one engine on held-out good images, with the code that serves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flows.fastflow.calibration import calibrator as calibration
from flows.fastflow.inference.scorer import Scorer
from flows.fastflow.manifest import Calibration, ThresholdRecord
from training.data.pinned_images import PinnedImage, read


@dataclass(frozen=True)
class EngineCalibration:
    """The calibration of one engine.

    Attributes:
        threshold: threshold of the image score, with the rate that it certifies.
        scores: scores of the images, in their order.
        descriptions: (n, D), of the images in the order of the calibration's scores, see
            `flows.fastflow.model.learned.describe`.
    """

    calibration: Calibration
    threshold: ThresholdRecord
    scores: list[float]
    descriptions: NDArray[np.float32]


class DescribedMeasurement(NamedTuple):
    """Measurement and description, (D,), of a good image."""

    measurement: calibration.ImageMeasurement
    description: NDArray[np.float32]


def calibrate(
    scorer: Scorer,
    images: Sequence[PinnedImage],
    target_fpr: float,
    advance: Callable[[int], None],
    sample_bits: int,
) -> EngineCalibration:
    """Score held-out good images and set the thresholds by split conformal prediction.

    The image threshold keeps the false-reject rate at most `target_fpr`, if there are enough images. The
    pixel threshold does the same for the largest value of a map, see
    `flows.fastflow.calibration.calibrator.calibrate`.

    Args:
        target_fpr: share of good parts that may be rejected.
        sample_bits: see `decoder.decode_image`.

    Raises:
        ImageError: an image cannot be decoded; it is named.
        DatasetError: its file is gone or was changed; it is named.
    """
    return set_thresholds(measure(scorer, images, advance, sample_bits), target_fpr)


def set_thresholds(
    measured: Sequence[DescribedMeasurement], target_fpr: float, *, cross_fitted: bool = False
) -> EngineCalibration:
    """Set the thresholds from measured good images, see `calibration.calibrate`."""
    measurements = [image.measurement for image in measured]
    made = calibration.calibrate(measurements, target_fpr, cross_fitted=cross_fitted)
    record = calibration.record_threshold(made, target_fpr)
    scores = [image.measurement.score for image in measured]
    descriptions = np.stack([image.description for image in measured])
    return EngineCalibration(made, record, scores, descriptions[np.argsort(scores, kind="stable")])


def describe_images(
    scorer: Scorer, images: Sequence[PinnedImage], advance: Callable[[int], None], sample_bits: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the descriptions (n, D) and the scores (n,) of images; arguments as of `calibrate`."""
    measured = measure(scorer, images, advance, sample_bits)
    scores = np.asarray([image.measurement.score for image in measured], np.float32)
    return np.stack([image.description for image in measured]), scores


def measure(
    scorer: Scorer, images: Sequence[PinnedImage], advance: Callable[[int], None], sample_bits: int
) -> list[DescribedMeasurement]:
    """Score and describe images one at a time, as parts come on the line; arguments as of `calibrate`."""
    measured = []
    for image in images:
        [scored] = scorer.score([read(image, sample_bits)])
        assert scored.description is not None  # noqa: S101  (the scorer describes)
        measured.append(DescribedMeasurement(calibration.measure_image(scored), scored.description))
        advance(1)
    return measured
