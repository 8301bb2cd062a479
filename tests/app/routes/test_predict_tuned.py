"""What an operator's settings make of a prediction, and the regions that explain it."""

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from app.inspection.image_pipeline import InspectionPipeline
from app.schemas.predict import Inspection
from flows.fastflow.imaging import decoder
from tests.app.support.bundles import copy_version
from tests.app.support.models_folders import change_manifest
from tests.app.support.services import create_service
from tests.conftest import picture, png

Images = dict[str, list[bytes]]

PREDICT = "/v1/models/tiny/predict"
THRESHOLDS = "/v1/models/tiny/thresholds"
REGION = "/v1/models/tiny/region"
# The scratch of a defective part ends left of it.
RIGHT = {"image": {"width": 640, "height": 320}, "polygons": [[[520, 0], [640, 0], [640, 320], [520, 320]]]}


def predict(client: TestClient, data: bytes, **query: str) -> Inspection:
    response = client.post(PREDICT, content=data, params=query)
    assert response.status_code == 200, response.text
    return Inspection.model_validate(response.json())


def score_map(client: TestClient, data: bytes, **query: str) -> NDArray[np.float32]:
    response = client.post(PREDICT, content=data, params=query, headers={"Accept": "application/x-npy"})
    assert response.status_code == 200, response.text
    found: NDArray[np.float32] = np.load(io.BytesIO(response.content), allow_pickle=False)
    return found


def set_rates(client: TestClient, **rates: float | None) -> None:
    headers = {"If-Match": client.get(THRESHOLDS).headers["ETag"]}
    response = client.patch(THRESHOLDS, json={**rates, "reason": "a test"}, headers=headers)
    assert response.status_code == 200, response.text


class TestRegions:
    def test_regions_explain_a_rejected_part(self, service: TestClient) -> None:
        for seed in range(2000, 2003):
            pixels = picture(seed, defect=True)
            scratch = (pixels != picture(seed)).any(2)
            large = png(pixels.repeat(3, 0).repeat(2, 1)[:150])
            answer = predict(service, large)
            assert answer.decision == "REJECT"
            assert answer.regions
            assert 0 < answer.anomalous_area_fraction < 1
            for region in answer.regions:
                x, y, width, height = region.bbox
                assert 0 <= x < x + width <= answer.image.width == 128
                assert 0 <= y < y + height <= answer.image.height == 150
                assert all(x <= i <= x + width and y <= j <= y + height for i, j in region.contour)
                assert region.peak > answer.threshold.pixel
                assert region.area_fraction == pytest.approx(region.area_px / (128 * 150), abs=1e-4)
            peaks = [region.peak for region in answer.regions]
            assert peaks == sorted(peaks, reverse=True)
            assert peaks[0] == pytest.approx(float(score_map(service, large).max()), rel=1e-4)
            x, y, width, height = answer.regions[0].bbox
            row, column = np.argwhere(scratch).mean(0)
            assert x <= 2 * column <= x + width
            assert y <= 3 * row <= y + height

    def test_regions_come_when_asked_for(self, service: TestClient, tiny_images: Images) -> None:
        for data in (tiny_images["good"][0], tiny_images["defect"][0]):
            answers = [predict(service, data, regions=wanted) for wanted in ("true", "false")]
            assert answers[0].regions is not None
            assert answers[1].regions is None
            assert answers[0].anomalous_area_fraction == answers[1].anomalous_area_fraction
            # Of two servers, each has compiled the model: the last digit of a float32 may differ.
            assert answers[0].score == pytest.approx(answers[1].score, rel=1e-6)
            for answer in answers:
                assert answer.links is not None
                kept = Inspection.model_validate(service.get(answer.links.inspection).json())
                assert kept.regions == answer.regions

    def test_regions_do_not_make_the_decision(self, service: TestClient, tiny_images: Images) -> None:
        for data in (*tiny_images["good"], *tiny_images["defect"]):
            answer = predict(service, data)
            above = score_map(service, data) > answer.threshold.pixel
            assert bool(answer.regions) == above.any()
            assert (answer.decision == "REJECT") == (answer.score > answer.threshold.reject)


class TestReviewBand:
    def test_repeated_answer_stays_as_it_was(self, client: TestClient, tiny_images: Images) -> None:
        headers = {"Idempotency-Key": "k"}
        first = client.post(PREDICT, content=tiny_images["good"][0], headers=headers).json()
        assert first["decision"] == "PASS"
        set_rates(client, target_fpr=0.9)
        assert client.post(PREDICT, content=tiny_images["good"][0], headers=headers).json() == first
        assert predict(client, tiny_images["good"][0]).decision == "REJECT"


class TestRegionOfInterest:
    @pytest.fixture
    def blind(self, store: Path) -> Path:
        """A version that finds defects only where they cover half of an image."""
        folder = copy_version(store, "blind")
        change_manifest(folder, score={"top_fraction": 0.5})
        return folder

    @pytest.mark.one_server("looks at the cache of one server")
    def test_region_is_drawn_once(
        self, client: TestClient, tiny_images: Images, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert client.put(REGION, json=RIGHT).status_code == 200
        data = tiny_images["good"][0]
        before = predict(client, data)
        # What waits to be drawn keeps no decision waiting.
        monkeypatch.delattr(InspectionPipeline, "run_in_thread")
        assert predict(client, data).score == before.score

    def test_regions_of_the_answer_end_where_it_does(self, client: TestClient, tiny_images: Images) -> None:
        larger = 3
        data = png(decoder.decode_image(tiny_images["defect"][0]).repeat(larger, 0).repeat(larger, 1))
        before = predict(client, data).regions
        assert before is not None
        [whole] = before
        edge = 32
        assert whole.bbox[0] < larger * edge < whole.bbox[0] + whole.bbox[2]
        half = [[edge, 0], [64, 0], [64, 64], [edge, 64]]
        region = {"image": {"width": 64, "height": 64}, "polygons": [half]}
        assert client.put(REGION, json=region).status_code == 200
        answer = predict(client, data)
        assert answer.decision == "REJECT"
        assert answer.regions
        assert all(found.bbox[0] >= larger * edge for found in answer.regions)

    def test_region_too_small_for_a_version_decides_nothing(
        self, blind: Path, client: TestClient, tiny_images: Images
    ) -> None:
        """As where it was set while another version was being activated."""
        data = tiny_images["defect"][0]
        assert client.put(REGION, params={"station": "line-3"}, json=RIGHT).status_code == 200
        by_name = f"/v1/models/tiny/versions/{blind.name}/predict"
        for _ in range(2):
            response = client.post(by_name, content=data, params={"station": "line-3"})
            assert (response.status_code, response.json()["type"]) == (503, "model-loading")
            assert "no defect could be detected. Set a larger region." in response.json()["detail"]
        assert client.post(by_name, content=data).status_code == 200
        assert predict(client, data, station="line-3").decision == "PASS"

    def test_region_in_force_is_in_the_answer(self, client: TestClient, tiny_images: Images) -> None:
        data = tiny_images["defect"][0]
        before = predict(client, data)
        assert before.settings.model_dump() == {"revision": 0, "region": None}
        assert client.put(REGION, json=RIGHT).status_code == 200
        everybody = predict(client, data, station="line-4")
        assert client.put(REGION, params={"station": "line-3"}, json=RIGHT).status_code == 200
        own = predict(client, data, station="line-3")
        assert everybody.settings.model_dump() == {"revision": 1, "region": {"station": None, "revision": 1}}
        assert own.settings.model_dump() == {"revision": 2, "region": {"station": "line-3", "revision": 2}}
        assert own.links is not None
        assert client.get(own.links.inspection).json()["settings"] == own.settings.model_dump()
        done = [e["detail"] for e in client.get("/v1/audit").json()["entries"] if e["outcome"] == "done"]
        assert [detail["revision"] for detail in done if "to" in detail] == [2, 1]

    def test_region_holds_for_any_size_and_the_kept_map(
        self, client: TestClient, tiny_images: Images
    ) -> None:
        assert client.put(REGION, json=RIGHT).status_code == 200
        large = png(decoder.decode_image(tiny_images["defect"][0]).repeat(2, 0).repeat(4, 1))
        answer = predict(client, large)
        assert answer.links is not None
        kept = np.load(io.BytesIO(client.get(answer.links.map).content), allow_pickle=False)
        assert kept.shape == (64, 64)
        assert not kept[:, :52].any()
        assert kept[:, 52:].any()
        assert not answer.regions
        [item] = client.post(f"{PREDICT}:batch", files={"file": large}).json()["items"]
        assert item["inspection"]["score"] == pytest.approx(answer.score, rel=1e-5)


def test_audit_sample_is_marked_and_survives_a_restart(store: Path, tiny_images: Images) -> None:
    image = tiny_images["good"][0]
    with create_service(store, audit_share=1) as client:
        answers = [predict(client, image) for _ in range(3)]
        assert all(answer.audit for answer in answers)
        assert not predict(client, image, store="false").audit  # nothing to review later
        set_rates(client, audit_share=0)
        assert not predict(client, image).audit
        review = {"verdict": "good", "expected_revision": 0}
        client.post(f"/v1/inspections/{answers[0].inspection_id}/reviews", json=review)
    with create_service(store) as client:
        page = client.get("/v1/inspections", params={"audit": True, "reviewed": False}).json()
        expected = [(answer.inspection_id, True) for answer in answers[:0:-1]]
        assert [(one["inspection_id"], one["audit"]) for one in page["inspections"]] == expected
