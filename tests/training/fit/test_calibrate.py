"""Calibration: scores equal to those of serving, and their thresholds."""

from pathlib import Path

import numpy as np

from flows.fastflow.detector import Detector
from flows.fastflow.imaging.decoder import read_image
from tests.training.pins import pins
from training.fit.calibrate import calibrate


def test_it_calibrates_by_what_serving_gives_image_by_image(tiny_data: Path, detector: Detector) -> None:
    paths = sorted((tiny_data / "tiny/test/good").iterdir())
    made = calibrate(detector.scorer.describing(), pins(paths), 0.25, lambda _: None, 16)
    served = [detector.scorer.score([read_image(path)])[0] for path in paths]
    assert made.scores == [one.score for one in served]  # in the order of the images
    served.sort(key=lambda one: one.score)
    assert made.calibration.scores == [one.score for one in served]
    assert made.calibration.statistics == [list(one.statistics) for one in served]
    described = [detector.scorer.describing().score([read_image(path)])[0] for path in paths]
    described.sort(key=lambda one: one.score)
    np.testing.assert_array_equal(made.descriptions, [one.description for one in described])
    # l = floor(0.25 * (8 + 1)) = 2: the second largest of the eight.
    assert (made.threshold.reject, made.threshold.achievable_fpr) == (served[-2].score, 2 / 9)
    assert made.calibration.map_threshold == sorted(float(one.score_map.max()) for one in served)[-2]
    assert made.calibration.map_typical == np.median([np.median(one.score_map) for one in served])
