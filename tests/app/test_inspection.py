"""A map without an anomaly is explained at once, and just as a thread would explain it."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from app.batch import Batched
from app.category_settings import CategorySettings
from app.inference import Decoded
from app.inspection import Drawing, Explained, Inspected
from app.schemas.predict import SettingsUsed
from app.turns import Timed
from app.verdict import thresholds
from flows.fastflow import models_folder
from flows.fastflow.detector import Detector
from tests.conftest import picture


@pytest.fixture(scope="module")
def inspected(tiny_bundle_store: Path) -> Inspected:
    detector = Detector.load(models_folder.resolve(tiny_bundle_store, "tiny"), device="cpu")
    image = picture(1000)
    prepared = detector.prepare(image)
    (prediction,) = detector.predict_prepared([prepared])
    return Inspected(
        detector,
        thresholds(detector.calibrator, CategorySettings()),
        SettingsUsed(revision=0, region=None),
        {},
        Timed(Decoded(image.shape[:2], prepared, None, "0" * 64), 0.0, 0.0),
        Batched(prediction, 0.0, 0.0, 1),
    )


def pixel_threshold(inspected: Inspected) -> float:
    return inspected.thresholds.calibrator.colour_scale.middle


def with_map(inspected: Inspected, score_map: NDArray[np.float32]) -> Inspected:
    prediction = replace(inspected.batched.prediction, score_map=score_map)
    return replace(inspected, batched=replace(inspected.batched, prediction=prediction))


def filled(inspected: Inspected, value: float) -> NDArray[np.float32]:
    return np.full_like(inspected.batched.prediction.score_map, value)


@pytest.mark.parametrize("with_regions", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_quiet_map_is_explained_at_once(inspected: Inspected, with_regions: bool, share: float) -> None:
    """Also one whose values lie at the threshold: only what is above it counts."""
    quiet = with_map(inspected, filled(inspected, float(share * np.float32(pixel_threshold(inspected)))))
    explained = quiet.explain_at_once((), with_regions)
    assert explained is not None
    assert explained == quiet.explain((), with_regions)


def test_one_pixel_above_the_threshold_is_work_for_a_thread(inspected: Inspected) -> None:
    score_map = filled(inspected, 0.0)
    score_map[0, 0] = np.nextafter(np.float32(pixel_threshold(inspected)), np.float32(np.inf))
    loud = with_map(inspected, score_map)
    assert loud.explain_at_once((), True) is None
    assert loud.explain((), True).area_fraction > 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_is_refused_all_the_same(inspected: Inspected, value: float) -> None:
    score_map = filled(inspected, 0.0)
    score_map[-1, -1] = value
    broken = with_map(inspected, score_map)
    assert broken.explain_at_once((), True) is None
    for with_regions in (True, False):
        with pytest.raises(ValueError, match="must be finite"):
            broken.explain((), with_regions)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_gets_no_decision(inspected: Inspected, value: float) -> None:
    """NaN is above no threshold, so it would pass."""
    prediction = replace(inspected.batched.prediction, raw_score=value)
    broken = replace(inspected, batched=replace(inspected.batched, prediction=prediction))
    with pytest.raises(ValueError, match="must be finite"):
        broken.inspection(Timed(Explained({}, [], 0.0), 0.0, 0.0), False, 0.1)


@pytest.mark.parametrize("wanted", [["overlay"], ["heatmap"], ["map"]])
def test_what_is_to_be_drawn_is_work_for_a_thread(inspected: Inspected, wanted: list[Drawing]) -> None:
    assert with_map(inspected, filled(inspected, 0.0)).explain_at_once(wanted, True) is None


def test_so_is_a_large_map(inspected: Inspected) -> None:
    assert with_map(inspected, np.zeros((1024, 1024), np.float32)).explain_at_once((), True) is None
