"""Calibration: the scores that serving will give, and the thresholds that follow from them."""

from pathlib import Path

import numpy as np
import pytest

from flows.fastflow.detector import Detector
from flows.fastflow.images import read
from flows.fastflow.models_folder import resolve
from flows.fastflow.scorer import Scorer
from tests.training.pins import pins
from training.calibrate import Calibrated, calibrate


@pytest.fixture(scope="module")
def scorer(tiny_bundle_store: Path) -> Scorer:
    return Detector.load(resolve(tiny_bundle_store, "tiny"), device="cpu").scorer


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, tiny_images: dict[str, list[bytes]]) -> list[Path]:
    folder = tmp_path_factory.mktemp("held-out")
    for i, data in enumerate(tiny_images["good"]):
        (folder / f"{i}.png").write_bytes(data)
    return sorted(folder.iterdir())


def ignore(steps: int) -> None:
    """A progress that nobody watches."""


@pytest.fixture(scope="module")
def calibrated(scorer: Scorer, pictures: list[Path]) -> Calibrated:
    return calibrate(scorer, pins(pictures), 0.25, ignore, 16)


def test_scores_are_those_of_serving_picture_by_picture(
    scorer: Scorer, pictures: list[Path], calibrated: Calibrated
) -> None:
    served = [scorer.score([read(path)])[0].score for path in pictures]
    assert calibrated.scores == served  # in the order of the pictures
    assert calibrated.calibration.scores == sorted(served)
    assert len(set(served)) == len(served)


def test_statistics_belong_to_the_scores_row_by_row(
    scorer: Scorer, pictures: list[Path], calibrated: Calibrated
) -> None:
    served = sorted((s.score, s.statistics) for path in pictures for s in scorer.score([read(path)]))
    assert calibrated.calibration.statistics == [list(statistics) for _, statistics in served]
    assert calibrated.calibration.scores == [score for score, _ in served]


def test_the_threshold_is_the_split_conformal_one(calibrated: Calibrated) -> None:
    # l = floor(0.25 * (8 + 1)) = 2: the second largest of the eight.
    assert calibrated.threshold.reject == sorted(calibrated.scores)[-2]
    assert calibrated.threshold.certified
    assert calibrated.threshold.target_fpr == 0.25
    assert calibrated.threshold.achievable_fpr == 2 / 9
    assert calibrated.threshold.n_calibration == 8


def test_the_pixel_threshold_bounds_the_maps_peaks_the_same_way(
    scorer: Scorer, pictures: list[Path], calibrated: Calibrated
) -> None:
    maps = [scorer.score([read(path)])[0].score_map for path in pictures]
    peaks = sorted(float(m.max()) for m in maps)
    assert calibrated.calibration.map_threshold == peaks[-2]
    assert calibrated.calibration.map_typical == np.median([np.median(m) for m in maps])
    assert calibrated.calibration.map_typical < calibrated.calibration.map_threshold
