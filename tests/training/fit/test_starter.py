"""A starter: fitted to ten images in seconds, calibrated with the same ones, and honest about both."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from flows.fastflow.bundle.bundle import verify
from flows.fastflow.detector import Detector
from flows.fastflow.engines.device import pick_device
from flows.fastflow.engines.engine import has_openvino, pick_engine
from flows.fastflow.imaging.decoder import decode_image, read_image
from flows.fastflow.learning.learn import learn
from flows.fastflow.learning.reviewed import LearningError
from training.config.run_config import RunConfig
from training.data.sample import DatasetError
from training.evaluation.evaluate import evaluate_version
from training.fit.preparation import prepare_run
from training.fit.stages import build_scorers, compute_features, load_extractor
from training.fit.starter import fit_starter
from training.run import train
from training.terminal.progress import Silent


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    """Ten good images, without test images."""
    folder = tmp_path_factory.mktemp("ten")
    (folder / "tiny").mkdir()
    for path in sorted((tiny_data / "tiny/train/good").iterdir())[:10]:
        shutil.copy(path, folder / "tiny")
    return folder


@pytest.fixture(scope="module")
def config(tiny_config: RunConfig) -> RunConfig:
    return tiny_config.as_starter()


def fit(config: RunConfig, data: Path, root: Path) -> Path:
    models, runs = root / "models", root / "runs"
    return train(config, data, "tiny", models=models, runs=runs, resume=False, progress=Silent()).bundle


@pytest.fixture(scope="module")
def bundle(data: Path, config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(config, data, tmp_path_factory.mktemp("starter"))


@pytest.fixture(scope="module")
def detector(bundle: Path) -> Detector:
    return Detector.load(bundle, device="cpu")


def test_bundle_says_that_it_is_a_starter(bundle: Path) -> None:
    manifest = verify(bundle)
    assert manifest.starter
    assert (manifest.data.n_fit, manifest.data.n_calibration) == (10, 10)
    assert manifest.metrics == {}
    assert not any(name.startswith("learning/") for name in manifest.files)


def test_ten_images_promise_one_in_eleven(bundle: Path) -> None:
    threshold = verify(bundle).thresholds["float32"]
    assert (threshold.achievable_fpr, threshold.n_calibration) == (1 / 11, 10)
    assert threshold.reject == max(verify(bundle).calibration.scores)


def test_cross_fitted_rates_are_not_certified(detector: Detector) -> None:
    assert detector.calibrator.calibration.cross_fitted
    assert not detector.calibrator.threshold_at(0.5).certified  # which ten held-out images would certify


def test_each_image_is_scored_by_a_starter_of_the_others(
    data: Path, config: RunConfig, bundle: Path, tmp_path: Path
) -> None:
    run = prepare_run(
        config, data, "tiny", tmp_path, tmp_path / "runs", resume=False, progress=Silent(), backbones=None
    )
    extractor = load_extractor(run)
    features, views = compute_features(run, extractor)
    expected = []
    for i, path in enumerate(run.images.paths):
        [scorer] = build_scorers(run, extractor, fit_starter(run, features, views, {i})).values()
        expected.append(scorer.score([read_image(path)])[0].score)
    assert verify(bundle).calibration.scores == pytest.approx(sorted(expected), rel=1e-6)


def test_all_engines_give_equal_scores(detector: Detector, tiny_images: dict[str, list[bytes]]) -> None:
    images = [decode_image(data) for data in (*tiny_images["good"][:3], *tiny_images["defect"][:3])]
    torch = detector.scorer.score(images)
    if not has_openvino():
        pytest.skip("no OpenVINO")
    openvino = detector.scorer.with_engine(pick_engine("float32", pick_device("cpu"), "openvino"))
    for one, other in zip(torch, openvino.score(images), strict=True):
        assert other.score == pytest.approx(one.score, rel=1e-5)
        np.testing.assert_allclose(other.score_map, one.score_map, rtol=1e-3, atol=1e-4)


def test_starter_separates_good_and_defective(
    detector: Detector, tiny_images: dict[str, list[bytes]]
) -> None:
    good, defective = (
        [one.score for one in detector.predict([decode_image(data) for data in tiny_images[kind]])]
        for kind in ("good", "defect")
    )
    assert np.median(defective) > max(good)


def test_starter_is_evaluated_like_any_version(bundle: Path, tiny_data: Path, tmp_path: Path) -> None:
    evaluated = evaluate_version(
        tiny_data,
        "tiny",
        version=None,
        models=bundle.parent.parent,
        out=tmp_path,
        device="cpu",
        precision="float32",
        peers=None,
        progress=Silent(),
    )
    assert evaluated.summary["image_auroc"] > 0.9


def test_nine_images_are_refused(data: Path, config: RunConfig, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    next((tmp_path / "data/tiny").iterdir()).unlink()
    with pytest.raises(DatasetError, match="9 good images are too few: add 1 more"):
        fit(config, tmp_path / "data", tmp_path)


def test_starter_does_not_learn_from_reviews(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(LearningError, match="starter"):
        learn(bundle, tmp_path, [], [], "cpu")
