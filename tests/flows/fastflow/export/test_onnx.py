"""ONNX files: other runtimes give the scores and maps that FlowGauge gives."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from flows.fastflow.bundle.models_folder import resolve
from flows.fastflow.config import Geometry
from flows.fastflow.detector import Detector
from flows.fastflow.export.onnx import ExportError, export_onnx, onnx_metadata
from flows.fastflow.imaging.decoder import decode_image
from flows.fastflow.imaging.resizing import resize
from flows.fastflow.inference.scorer import Scorer
from flows.fastflow.model.learned import LearnedPart

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def detector(tiny_bundle_store: Path) -> Detector:
    """With a learned part, which is the last thing that a graph adds."""
    plain = Detector.load(resolve(tiny_bundle_store, "tiny"), device="cpu")
    one = plain.scorer
    one.head.learned = LearnedPart(one.extractor.channels)
    one.head.learned.weights.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    scorer = Scorer(one.extractor, one.head, one.input_size, one.rule, one.geometry)
    return Detector(plain.manifest, plain.sha256, scorer)


@pytest.fixture(scope="module")
def exported(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "tiny.onnx"
    path.write_bytes(b"old")
    export_onnx(detector, path)
    return path


@pytest.fixture(scope="module")
def inputs(detector: Detector, tiny_images: dict[str, list[bytes]]) -> NDArray[np.uint8]:
    files = (*tiny_images["good"][:2], *tiny_images["defect"][:3])
    return np.stack(
        [
            resize(decode_image(data), detector.manifest.input_size, detector.scorer.geometry.shrink)
            for data in files
        ]
    )


def expect_the_same(
    detector: Detector, inputs: NDArray[np.uint8], score: NDArray[np.float32], maps: NDArray[np.float32]
) -> None:
    expected = detector.predict(list(inputs))
    np.testing.assert_allclose(score, [one.score for one in expected], rtol=1e-4)
    np.testing.assert_allclose(maps, np.stack([one.score_map for one in expected]), rtol=1e-3, atol=1e-4)


def test_onnxruntime(detector: Detector, exported: Path, inputs: NDArray[np.uint8]) -> None:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    expect_the_same(detector, inputs, *session.run(["score", "map"], {"images": inputs}))
    expect_the_same(detector, inputs[:1], *session.run(["score", "map"], {"images": inputs[:1]}))
    assert session.get_modelmeta().custom_metadata_map == dict(onnx_metadata(detector))


def test_the_threshold_decides_as_the_service_does(detector: Detector, inputs: NDArray[np.uint8]) -> None:
    told = onnx_metadata(detector)
    assert (told["shrink"], told["sample_bits"]) == ("halves-area", "16")
    limit = float(told["reject_above"])
    for one in detector.predict(list(inputs)):
        assert (one.score > limit) == (one.decision == "REJECT")


def test_review_band_goes_with_the_model(detector: Detector) -> None:
    assert not onnx_metadata(detector).keys() & {"review_above", "review_fpr"}
    manifest = detector.manifest.model_copy(update={"review_fpr": 0.5})
    banded = Detector(manifest, detector.sha256, detector.scorer)
    told = onnx_metadata(banded)
    assert told["review_fpr"] == "0.5"
    decided = set()
    for score in [*banded.calibrator.scores, float(told["reject_above"]) + 1]:
        above = [score > float(told[limit]) for limit in ("review_above", "reject_above")]
        decision = banded.calibrator.default_thresholds.decide(score)
        assert above == [decision != "PASS", decision == "REJECT"]
        decided.add(decision)
    assert decided == {"PASS", "REVIEW", "REJECT"}


def test_what_no_single_graph_can_hold_is_rejected(detector: Detector, tmp_path: Path) -> None:
    one = detector.scorer
    for geometry, why in (
        (Geometry(fit="tile"), "geometry.fit: tile"),
        (Geometry(margin=8), "geometry.margin: 8"),
    ):
        other = Scorer(one.extractor, one.head, one.input_size, one.rule, geometry=geometry)
        with pytest.raises(ExportError, match=why):
            export_onnx(Detector(detector.manifest, detector.sha256, other), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())
