"""What a predict request is answered, in memory; test_predictor.py has what needs a real connection."""

import base64
import hashlib
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from anyio.to_thread import current_default_thread_limiter
from numpy.typing import NDArray
from PIL import Image
from starlette.testclient import TestClient

from app.main import create_app
from app.schemas.predict import Inspection
from app.settings import Settings
from flows.fastflow.bundle import models_folder
from flows.fastflow.detector import Detector
from flows.fastflow.imaging import decoder, heatmap
from flows.fastflow.inference.scorer import Scorer
from tests.app.support.bundles import copy_version
from tests.app.support.guard import assert_problem
from tests.flows.fastflow.manifests import edit

Images = dict[str, list[bytes]]
ReadPng = Callable[[bytes], NDArray[np.uint8]]

PREDICT = "/v1/models/tiny/predict"
RAW = {"Content-Type": "image/png"}


def encode(image: NDArray[np.uint8], kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def test_raw_body_and_form_get_the_detectors_answer(
    service: TestClient, detector: Detector, tiny_images: Images
) -> None:
    for data in (tiny_images["good"][0], tiny_images["defect"][0]):
        [expected] = detector.predict([decoder.decode_image(data)])
        for response in (
            service.post(PREDICT, content=data, headers=RAW),
            service.post(PREDICT, files={"file": ("part.png", data, "image/png")}),
        ):
            assert response.status_code == 200
            assert response.headers["content-type"] == "application/json"
            answer = Inspection.model_validate(response.json())
            assert answer.score == pytest.approx(expected.score, rel=1e-5)
            assert (answer.p_value, answer.decision) == (expected.p_value, expected.decision)


def test_json_is_complete(service: TestClient, detector: Detector, tiny_images: Images) -> None:
    data = encode(decoder.decode_image(tiny_images["defect"][0])[:50], "PNG")
    form = {"part_id": "P-1", "product_id": "bottle", "recipe_id": "r", "station": "Linie ä"}
    body = service.post(PREDICT, files={"file": ("p", data)}, data=form).json()
    assert set(body) == set(Inspection.model_fields) - {"inline"}
    answer = Inspection.model_validate(body)
    assert form == {name: getattr(answer, name) for name in form}
    version = detector.manifest.version
    assert answer.model.model_dump() == {"category": "tiny", "version": version, "sha256": detector.sha256}
    [expected] = detector.predict([decoder.decode_image(data)])
    pixel = detector.manifest.calibration.map_threshold
    assert answer.anomalous_area_fraction == pytest.approx(float((expected.score_map > pixel).mean()))
    assert answer.threshold.pixel == pixel
    recorded = detector.manifest.thresholds["float32"].model_dump()
    recorded["fpr_at_95_confidence"] = pytest.approx(1 - 0.05**0.1)  # of 10 images
    assert answer.threshold.model_dump(exclude={"pixel", "review", "calibration"}) == recorded
    assert answer.threshold.calibration is not None
    assert answer.threshold.calibration.model_dump() == {"id": detector.sha256[:12], "source": "bundle"}
    assert answer.threshold.review is None
    assert answer.settings.model_dump() == {"revision": 0, "region": None}
    assert (answer.decision == "REJECT") == (answer.score > answer.threshold.reject)
    sha256 = hashlib.sha256(data).hexdigest()
    assert answer.image.model_dump() == {"width": 64, "height": 50, "sha256": sha256, "sample_bits": 16}
    timing = answer.timing_ms
    stages = (timing.decode, timing.queue, timing.infer, timing.render)
    assert min(stages) >= 0
    assert timing.total >= sum(stages)
    assert answer.batch_size == 1
    assert answer.engine.endswith("-cpu-float32")
    other = service.post(PREDICT, content=data, headers=RAW).json()
    assert other["inspection_id"] != answer.inspection_id
    assert [other[name] for name in form] == [None] * 4


@pytest.mark.one_server("changes the models folder by hand")
def test_version_can_be_named(store: Path, tiny_images: Images) -> None:
    active = models_folder.active_version(store, "tiny")
    copy_version(store, "other")
    with TestClient(create_app(Settings(models=store, preload=False))) as client:

        def version(path: str) -> str:
            response = client.post(
                f"/v1/models/tiny{path}/predict", content=tiny_images["good"][0], headers=RAW
            )
            answered: str = response.json()["model"]["version"]
            return answered

        assert version("") == active
        assert version("/versions/other") == "other"
        assert version(f"/versions/{active}") == active
        models_folder.activate(store, "tiny", "other")
        assert version("") == "other"


def test_no_request_waits_for_a_thread_of_the_framework(service: TestClient, tiny_images: Images) -> None:
    """There are 40, and requests that wait for one are counted nowhere."""
    portal = service.portal
    assert portal is not None
    limiter = portal.call(current_default_thread_limiter)
    borrowers = [object() for _ in range(int(limiter.available_tokens))]
    with ThreadPoolExecutor(1) as pool:
        for borrower in borrowers:
            portal.call(limiter.acquire_on_behalf_of, borrower)
        answer = pool.submit(service.post, PREDICT, content=tiny_images["good"][0], headers=RAW)
        try:
            assert answer.result(60).status_code == 200
        finally:
            for borrower in borrowers:
                portal.call(limiter.release_on_behalf_of, borrower)


class TestAccept:
    def test_image_is_the_overlay(
        self, service: TestClient, detector: Detector, tiny_images: Images, read_png: ReadPng
    ) -> None:
        data = tiny_images["defect"][0]
        image = decoder.decode_image(data)
        [expected] = detector.predict([image])
        lines = [*RAW.items(), ("Accept", "text/html"), ("Accept", "image/*")]
        assert service.post(PREDICT, content=data, headers=lines).headers["content-type"] == "image/png"
        response = service.post(PREDICT, content=data, headers=RAW | {"Accept": "image/*"})
        assert response.headers["content-type"] == "image/png"
        drawn = heatmap.render_overlay(image, expected.score_map, detector.calibrator.colour_scale)
        np.testing.assert_allclose(read_png(response.content), drawn, atol=1)
        self.expect_headers(response.headers, expected.score, expected.p_value, expected.decision)
        assert response.headers["X-Model-Version"] == detector.manifest.version

    def test_npy_is_the_map_at_the_models_size(
        self, service: TestClient, detector: Detector, tiny_images: Images
    ) -> None:
        image = np.repeat(np.repeat(decoder.decode_image(tiny_images["defect"][0]), 3, 0), 2, 1)
        [expected] = detector.predict([image])
        headers = RAW | {"Accept": "application/x-npy"}
        response = service.post(PREDICT, content=encode(image, "PNG"), headers=headers)
        assert response.headers["content-type"] == "application/x-npy"
        score_map = np.load(io.BytesIO(response.content), allow_pickle=False)
        assert score_map.dtype == np.float32
        assert score_map.shape == detector.manifest.input_size
        np.testing.assert_allclose(score_map, expected.score_map, rtol=1e-4, atol=1e-5)
        assert (response.headers["X-Image-Width"], response.headers["X-Image-Height"]) == ("128", "192")
        self.expect_headers(response.headers, expected.score, expected.p_value, expected.decision)

    @staticmethod
    def expect_headers(headers: Any, score: float, p_value: float, decision: str) -> None:
        assert float(headers["X-Score"]) == pytest.approx(score, rel=1e-5)
        assert float(headers["X-P-Value"]) == p_value
        assert headers["X-Decision"] == decision

    @pytest.mark.parametrize("accept", ["image/jpeg", "application/json;q=0"])
    def test_other_types_are_refused(self, service: TestClient, tiny_images: Images, accept: str) -> None:
        headers = RAW | {"Accept": accept}
        response = service.post(PREDICT, content=tiny_images["good"][0], headers=headers)
        assert "image/png" in assert_problem(response, 406, "not-acceptable")


def test_pictures_come_inline_when_asked_for(
    service: TestClient, detector: Detector, tiny_images: Images, read_png: ReadPng
) -> None:
    data = tiny_images["defect"][0]
    image = decoder.decode_image(data)
    [expected] = detector.predict([image])
    drawn = {
        "overlay": heatmap.render_overlay(image, expected.score_map, detector.calibrator.colour_scale),
        "heatmap": heatmap.render_heatmap(expected.score_map, detector.calibrator.colour_scale, (64, 64)),
    }
    for query in ("inline=overlay", "inline=heatmap", "inline=heatmap&inline=overlay&inline=overlay"):
        answer = service.post(f"{PREDICT}?{query}", content=data, headers=RAW).json()
        asked = {part.removeprefix("inline=") for part in query.split("&")}
        assert set(answer["inline"]) == asked
        for name in asked:
            picture = read_png(base64.b64decode(answer["inline"][name], validate=True))
            np.testing.assert_allclose(picture, drawn[name], atol=1)


def test_good_image_after_damaged_ones_is_answered(service: TestClient, tiny_images: Images) -> None:
    good = tiny_images["good"][0]
    for size in range(0, len(good), max(1, len(good) // 10)):
        response = service.post(PREDICT, content=good[:size], headers=RAW)
        assert response.status_code in (415, 422), size
        assert response.headers["content-type"] == "application/problem+json"
        for word in ("cv2", "PIL", "OpenCV", "Traceback", "/", "0x"):
            assert word not in response.json()["detail"]
    assert service.post(PREDICT, content=good, headers=RAW).status_code == 200


@pytest.mark.parametrize(
    ("broken", "value"), [("score", np.nan), ("score_map", np.nan), ("score_map", -np.inf)]
)
def test_score_or_map_that_is_no_number_gets_no_decision(
    service: TestClient, tiny_images: Images, monkeypatch: pytest.MonkeyPatch, broken: str, value: float
) -> None:
    """NaN is above no threshold, so the part would pass."""
    score = Scorer.score_features

    def not_a_number(*given: Any) -> list[Any]:
        return [replace(one, **{broken: 0 * getattr(one, broken) + value}) for one in score(*given)]

    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "score_features", not_a_number)
        response = service.post(PREDICT, content=tiny_images["good"][0], headers=RAW)
    assert_problem(response, 500, "internal")


def test_12_bit_image_is_inspected_like_its_8_bit_copy(
    store: Path, tmp_path: Path, read_png: ReadPng, tiny_images: Images
) -> None:
    """A camera of 12 bits leaves the upper 4 of 16 empty, and the model knows it."""
    edit(models_folder.resolve(store, "tiny"), lambda document: document.update(sample_bits=12))
    flat = tiny_images["defect"][0]
    samples = decoder.decode_image(flat).astype(np.uint16) << 4 | 9
    deep = cv2.imencode(".png", samples[..., ::-1])[1].tobytes()
    seen = []
    with TestClient(create_app(Settings(models=store, history=tmp_path / "history"))) as client:
        for data in (flat, deep):
            answer = client.post(PREDICT, content=data, headers=RAW).json()
            assert answer["image"]["sample_bits"] == 12
            drawn = client.get(answer["links"]["overlay"])
            shown = client.get(f"/inspections/{answer['inspection_id']}/picture.jpg")
            assert drawn.status_code == shown.status_code == 200
            # TurboJPEG and all before it are deterministic: the same pixels, the same bytes.
            seen.append((answer["score"], answer["regions"], read_png(drawn.content).tolist(), shown.content))
    assert seen[0] == seen[1]
