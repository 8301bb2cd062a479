"""The detector: what it says of an image, and that it says what was said when it was calibrated."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from flows.fastflow.backbones.features import FeatureExtractor
from flows.fastflow.backbones.recorded import matches_manifest
from flows.fastflow.bundle.models_folder import resolve
from flows.fastflow.calibration import conformal
from flows.fastflow.calibration.calibrator import Calibrator
from flows.fastflow.config import FlowConfig, Geometry, ScoreRule
from flows.fastflow.detector import Detector
from flows.fastflow.engines.device import DeviceError, pick_device
from flows.fastflow.inference.scorer import Scorer
from flows.fastflow.manifest import Normalisation
from flows.fastflow.model.head import Head
from tests.flows.fastflow.manifests import edit
from tests.flows.fastflow.untrained import weights

Pictures = dict[str, list[NDArray[np.uint8]]]


@pytest.fixture(scope="module")
def detector(tiny_bundle_store: Path, tiny_extractor: FeatureExtractor) -> Detector:
    return Detector.load(resolve(tiny_bundle_store, "tiny"), device="cpu", backbone=tiny_extractor)


class TestPredict:
    def test_defects_score_above_good_parts_and_glow(
        self, detector: Detector, tiny_pictures: Pictures
    ) -> None:
        good, defect = (detector.predict(tiny_pictures[kind]) for kind in ("good", "defect"))
        truth = [0] * len(good) + [1] * len(defect)
        assert roc_auc_score(truth, [p.score for p in [*good, *defect]]) > 0.95
        brightest = [float(np.max(p.score_map)) for p in [*good, *defect]]
        assert roc_auc_score(truth, brightest) > 0.95

    def test_decision_and_p_value_follow_from_the_calibration(
        self, detector: Detector, tiny_pictures: Pictures
    ) -> None:
        scores = detector.manifest.calibration.scores
        predictions = detector.predict(tiny_pictures["good"] + tiny_pictures["defect"])
        for prediction in predictions:
            above = sum(s >= prediction.score for s in scores)
            assert prediction.p_value == (1 + above) / (len(scores) + 1)
            assert prediction.decision == (
                "REJECT" if prediction.score > detector.calibrator.threshold.reject else "PASS"
            )
        assert {p.decision for p in predictions} == {"PASS", "REJECT"}
        assert detector.calibrator.threshold == conformal.compute_threshold(
            scores, detector.calibrator.threshold.target_fpr
        )

    @pytest.mark.parametrize("size", [(1, 1), (17, 301), (64, 64), (500, 40)])
    def test_images_of_any_size_come_with_a_map_of_the_models_size(
        self, detector: Detector, size: tuple[int, int]
    ) -> None:
        picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        mixed = [picture, np.zeros((64, 64, 3), np.uint8)]
        for prediction in detector.predict(mixed):
            assert prediction.score_map.shape == detector.manifest.input_size
            assert prediction.score_map.dtype == np.float32
            assert np.isfinite(prediction.score_map).all()
            assert np.isfinite(prediction.score)
            assert prediction.score_map.min() >= 0

    def test_outside_a_region_no_defect_counts(self, detector: Detector, tiny_pictures: Pictures) -> None:
        corner = np.zeros((64, 64), np.bool_)
        corner[:12, :12] = True  # beside the part
        pictures = tiny_pictures["defect"]
        assert "REJECT" in {p.decision for p in detector.predict(pictures)}
        for prediction in detector.predict(pictures, [corner] * len(pictures)):
            assert prediction.decision == "PASS"
            assert prediction.p_value == conformal.p_value(prediction.score, detector.calibrator.scores)
            assert not prediction.score_map[~corner].any()


class TestScoreFeatures:
    def test_mixed_batch_scores_as_each_image_alone(
        self, detector: Detector, tiny_pictures: Pictures
    ) -> None:
        torch.manual_seed(1)
        extractor = detector.scorer.extractor
        head = Head(extractor.channels, Normalisation(mode="layer", pooling=1), FlowConfig(steps=2))
        for parameter in head.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter)
        other = Scorer(extractor, head, (64, 64), ScoreRule(top_fraction=0.05), Geometry())
        pictures = [p for pair in zip(*tiny_pictures.values(), strict=True) for p in pair][:7]
        region = np.ones((64, 64), np.bool_)
        region[:30] = False
        regions = [region if i % 3 == 0 else None for i in range(7)]
        prepared = [detector.prepare(picture) for picture in pictures]
        features = detector.scorer.features([one.pixels for one in prepared])
        for scorer, rows in ((detector.scorer, [0, 1, 4, 6]), (other, [2, 3, 5])):
            together = scorer.score_features([x[rows] for x in features], [regions[i] for i in rows])
            for scored, i in zip(together, rows, strict=True):
                [alone] = scorer.score_prepared([prepared[i]], [regions[i]])
                assert scored.raw_score == pytest.approx(alone.raw_score, rel=1e-5)
                assert scored.statistics == pytest.approx(alone.statistics, rel=1e-5, abs=1e-6)
                np.testing.assert_allclose(scored.score_map, alone.score_map, rtol=1e-3, atol=1e-3)

    def test_features_of_other_stages_are_rejected(self, detector: Detector, tiny_pictures: Pictures) -> None:
        features = detector.scorer.features(detector.prepare(tiny_pictures["good"][0]).tiles())
        for wrong in (features[:1], [*features, features[1]], features[::-1]):
            with pytest.raises(ValueError, match="expected feature maps of"):
                detector.scorer.score_features(wrong)


class TestLoad:
    def test_shared_backbone_and_its_own_give_the_same_scores(
        self, detector: Detector, tiny_bundle_store: Path, tiny_pictures: Pictures
    ) -> None:
        apart = Detector.load(resolve(tiny_bundle_store, "tiny"), device="cpu")
        assert apart.scorer.extractor is not detector.scorer.extractor
        one, two = (d.predict(tiny_pictures["defect"]) for d in (apart, detector))
        assert [p.score for p in one] == [p.score for p in two]

    def test_another_one_is_not(self, detector: Detector, tiny_bundle_store: Path) -> None:
        other = FeatureExtractor(weights(), (1, 2))
        assert not matches_manifest(other, detector.manifest)
        loaded = Detector.load(resolve(tiny_bundle_store, "tiny"), device="cpu", backbone=other)
        assert loaded.scorer.extractor is not other
        assert matches_manifest(loaded.scorer.extractor, loaded.manifest)

    def test_float_noise_in_a_golden_score_is_no_damage(
        self, tiny: Path, tiny_extractor: FeatureExtractor
    ) -> None:
        edit(tiny, lambda d: d["golden"][0].update(score=d["golden"][0]["score"] * (1 + 5e-4)))
        Detector.load(tiny, device="cpu", backbone=tiny_extractor)

    def test_own_calibration_takes_precedence_over_fallback(
        self, tiny: Path, tiny_extractor: FeatureExtractor
    ) -> None:
        own = Detector.load(tiny, device="cpu", backbone=tiny_extractor).calibrator
        other = Calibrator(own.calibration, 0.5, identifier="other")
        found = Detector.load(tiny, device="cpu", backbone=tiny_extractor, fallback=other).calibrator
        assert (found.identifier, found.target_fpr) == (own.identifier, own.target_fpr)


class TestDevice:
    def test_auto_is_cuda_where_there_is_one(self) -> None:
        assert pick_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
        assert pick_device("cpu") == torch.device("cpu")

    @pytest.mark.parametrize("name", ["tpu", "", "cuda:x", "gpu"])
    def test_what_is_no_device_is_rejected(self, name: str) -> None:
        with pytest.raises(DeviceError, match=r"unknown device .*; use auto, cpu, cuda or cuda:N") as caught:
            pick_device(name)
        assert repr(name) in str(caught.value)

    @pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7"])
    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
    def test_cuda_that_is_absent_is_never_replaced_silently(
        self, name: str, tiny: Path, tiny_extractor: FeatureExtractor
    ) -> None:
        for ask in (
            lambda: pick_device(name),
            lambda: Detector.load(tiny, device=name, backbone=tiny_extractor),
        ):
            with pytest.raises(DeviceError, match=f"'{name}' was asked for, but torch sees 0 CUDA devices"):
                ask()
