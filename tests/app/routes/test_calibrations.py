"""Renewing calibrations over REST: whose is in force, what is refused, and what the audit log says of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.http import forms
from app.recalibration import request_images
from app.registry.calibrations import CalibrationFiles
from flows.fastflow.bundle import models_folder
from flows.fastflow.calibration import conformal
from flows.fastflow.detector import Detector
from flows.fastflow.imaging import decoder
from tests.app.support.bundles import copy_version, make_archive, upload_copy
from tests.app.support.calibrations import URL, good_images, make_calibration, post_calibration, target_of
from tests.app.support.services import (
    create_service,
    inspect_and_review,
    list_actions,
    predict,
    refusal_detail,
)

Images = dict[str, list[bytes]]
PREDICT = "/v1/models/tiny/predict"
ZIP = {"Content-Type": "application/zip"}


class TestRenewal:
    def test_thresholds_follow_from_the_new_pictures_alone(
        self, client: TestClient, detector: Detector, tiny_images: Images
    ) -> None:
        before = predict(client, tiny_images["good"][0])
        pictures = good_images(19)
        response = post_calibration(client, pictures)
        assert response.status_code == 201, response.text
        body = response.json()
        scores = [p.score for data in pictures for p in detector.predict([decoder.decode_image(data)])]
        expected = conformal.compute_threshold(scores, 0.1)
        assert body["threshold"]["reject"] == pytest.approx(expected.reject, rel=1e-5)
        assert (body["threshold"]["n_calibration"], body["pictures"], body["left_out"]) == (19, 19, 0)
        assert body["threshold"]["achievable_fpr"] == expected.achievable_fpr
        assert body["threshold"]["calibration"]["source"] == "line"
        assert body["before"] == before["threshold"]
        assert body["warnings"] == []
        assert (body["origin"]["by"], body["origin"]["reason"]) == ("anonymous", "new lamp")
        read = client.get(URL)
        assert read.json() == {name: body[name] for name in read.json()}
        assert (
            read.headers["ETag"] == response.headers["ETag"] == f'"{body["threshold"]["calibration"]["id"]}"'
        )
        after = predict(client, tiny_images["good"][0])
        assert after["threshold"] == body["threshold"]
        assert after["score"] == before["score"]
        assert after["p_value"] == conformal.p_value(after["score"], sorted(scores))
        assert client.get("/v1/models/tiny/thresholds").json()["threshold"] == body["threshold"]
        own = post_calibration(client, good_images(9), station="line-3").json()["threshold"]
        for station, expected in (("line-3", own), ("line-4", body["threshold"])):
            assert predict(client, tiny_images["good"][0], station=station)["threshold"] == expected
            told = client.get(URL, params={"station": station}).json()
            assert (told["threshold"], told["stations"]) == (expected, ["line-3"])
        assert client.delete(f"{URL}?station=line-3", headers={"If-Match": "*"}).status_code == 204
        assert client.get(f"{URL}?station=line-3").json()["threshold"] == body["threshold"]
        assert client.delete(URL, headers={"If-Match": "*"}).status_code == 204
        told = client.get(URL).json()
        assert (told["threshold"], told["origin"]) == (before["threshold"], None)

    def test_it_outlives_the_process_and_is_of_one_version(self, store: Path, tiny_images: Images) -> None:
        first = models_folder.resolve(store, "tiny").name
        copy_version(store, "v2")
        with create_service(store) as client:
            own = post_calibration(client, good_images(9)).json()["threshold"]
        with create_service(store) as client:
            assert client.get(URL).json()["threshold"] == own
            assert client.post("/v1/models/tiny/versions/v2:activate").status_code == 200
            assert client.get(URL).json()["threshold"]["calibration"]["source"] == "bundle"
            second = post_calibration(client, good_images(9, 6000)).json()["threshold"]
            assert client.post("/v1/models/tiny:rollback").status_code == 200
            assert predict(client, tiny_images["good"][0])["threshold"] == own
            version = "/v1/models/tiny/versions/v2/predict?store=false"
            answer = client.post(version, content=tiny_images["good"][0]).json()
            assert answer["threshold"] == second != own
            assert client.delete("/v1/models/tiny/versions/v2").status_code == 204
        made = store / "tiny" / models_folder.CALIBRATIONS
        assert [path.name for path in made.iterdir()] == [first]


class TestAudited:
    @pytest.fixture
    def client(self, store: Path) -> Iterator[TestClient]:
        with create_service(store, audit_share=1) as client:
            yield client

    def inspect(self, client: TestClient, data: bytes, verdict: str = "good", **query: str) -> None:
        inspect_and_review(client, data, verdict, **{"station": "line-3", **query})

    def test_pictures_of_the_sample_that_are_good_by_their_reviews(
        self, client: TestClient, tiny_images: Images
    ) -> None:
        pictures = good_images(4)
        for data in pictures:
            self.inspect(client, data)
        self.inspect(client, tiny_images["defect"][0], "defect")
        self.inspect(client, good_images(1, 7000)[0], station="line-4")
        assert post_calibration(client, [], audit="true").json()["pictures"] == 5
        both = post_calibration(client, [pictures[0], *good_images(2, 8000)], audit="true").json()
        assert (both["pictures"], both["left_out"]) == (7, 1)
        assert post_calibration(client, [], audit="true", station="line-3").json()["pictures"] == 4
        # From then on they say nothing of the other stations: another lamp may be why.
        inspect_and_review(client, good_images(1, 9000)[0], None)
        last = post_calibration(client, [], audit="true").json()
        assert last["pictures"] == 1
        assert "without a review: 1." in last["warnings"][-1]
        later = {"reason": "x", "audit": "true", "from": "2100-01-01T00:00:00Z"}
        response = client.post(URL, params=later, headers={"If-Match": "*"})
        assert "needs good images" in refusal_detail(response, 400, "invalid-request")
        response = client.post(URL, params={**later, "from": "20260101"}, headers={"If-Match": "*"})
        assert "must be a time as" in refusal_detail(response, 400, "invalid-request")

    def test_audited_images_fill_the_room_beside_uploaded_ones(
        self, client: TestClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(request_images, "MAX_IMAGES", 4)
        pictures = good_images(3)
        for data in pictures:
            self.inspect(client, data)
        for data in good_images(6, 7000):
            self.inspect(client, data, part_id="P-1")
        alone = post_calibration(client, [], audit="true").json()
        assert (alone["pictures"], alone["left_out"]) == (4, 5)
        beside = post_calibration(client, [pictures[2], *good_images(1, 8000)], audit="true")
        assert beside.status_code == 201, beside.text
        assert (beside.json()["pictures"], beside.json()["left_out"]) == (4, 7)
        full = post_calibration(client, good_images(4, 9000), audit="true").json()
        assert (full["pictures"], full["left_out"]) == (4, 9)
        refusal_detail(post_calibration(client, good_images(5, 9000), audit="true"), 413, "too-large")


class TestWhereTheVersionHasNone:
    def make(self, folder: Path) -> None:
        """Make the line's calibration of a version."""
        made = make_calibration(target_of(folder, "bfloat16"), [0.1 * i for i in range(19)])
        CalibrationFiles(folder.parent.parent).change(target_of(folder, "bfloat16"), lambda _: made)

    @pytest.mark.one_server("changes the models folder by hand")
    def test_an_upload_is_let_in_and_serves_once_it_is_calibrated(
        self, store: Path, tiny_images: Images
    ) -> None:
        url = "/v1/models/nut/versions"
        with create_service(store, precision="bfloat16") as client:
            uploaded = client.post(url, content=make_archive(store, "v2", "nut"), headers=ZIP)
            assert uploaded.status_code == 201, uploaded.text
            detail = refusal_detail(client.post(f"{url}/v2:activate"), 422, "rejected-bundle")
            assert "calibrate --category nut --version v2 --precision bfloat16`" in detail
            assert models_folder.active_version(store, "nut") is None
            self.make(store / "nut" / "v2")
            assert client.post(f"{url}/v2:activate").status_code == 200
            answer = client.post("/v1/models/nut/predict", content=tiny_images["good"][0])
            assert answer.json()["engine"] == "torch-cpu-bfloat16"

    def test_the_lines_stays_and_a_stations_goes(self, store: Path) -> None:
        self.make(models_folder.resolve(store, "tiny"))
        with create_service(store, precision="bfloat16") as client:
            tag = client.get(URL).headers["ETag"]
            detail = refusal_detail(client.delete(URL, headers={"If-Match": tag}), 409, "conflict")
            assert "no calibration of its own for bfloat16" in detail
            assert post_calibration(client, good_images(9), station="s1").status_code == 201
            assert client.delete(f"{URL}?station=s1", headers={"If-Match": "*"}).status_code == 204
            assert client.get(URL).headers["ETag"] == tag


class TestIfMatch:
    def test_is_needed_and_must_fit(self, client: TestClient) -> None:
        assert client.get(URL).headers["ETag"] == '"0"'
        refusal_detail(post_calibration(client, good_images(1), if_match=None), 428, "precondition-required")
        refusal_detail(post_calibration(client, good_images(1), if_match='"9"'), 412, "precondition-failed")
        first = post_calibration(client, good_images(1), if_match='"0"')
        assert first.status_code == 201
        refusal_detail(post_calibration(client, good_images(2), if_match='"0"'), 412, "precondition-failed")
        # A station's own is another one.
        assert post_calibration(client, good_images(2), if_match='"0"', station="line-3").status_code == 201
        assert post_calibration(client, good_images(2), if_match=first.headers["ETag"]).status_code == 201
        refusal_detail(
            client.delete(URL, headers={"If-Match": first.headers["ETag"]}), 412, "precondition-failed"
        )
        refusal_detail(client.delete(URL), 428, "precondition-required")
        refusal_detail(client.delete(f"{URL}?station=other", headers={"If-Match": "*"}), 404, "not-found")

    def test_of_a_version_that_another_has_replaced_meanwhile(
        self, client: TestClient, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upload_copy(client, store, "v2")
        uploaded = request_images.uploaded_images

        def late(upload: forms.Upload) -> list[request_images.CalibrationImage]:
            assert client.post("/v1/models/tiny/versions/v2:activate").status_code == 200
            return uploaded(upload)

        monkeypatch.setattr(request_images, "uploaded_images", late)
        detail = refusal_detail(post_calibration(client, good_images(9)), 409, "conflict")
        assert detail.startswith("Another version serves since the request was sent")
        assert not (store / "tiny" / models_folder.CALIBRATIONS).exists()
        assert list_actions(client, "model.calibrate")[-1]["outcome"] == "refused"


class TestRefused:
    def test_pictures_that_the_model_was_fitted_to(self, steady: TestClient, tiny_data: Path) -> None:
        fitted = sorted((tiny_data / "tiny" / "train" / "good").iterdir())
        pictures = [*good_images(1), *(path.read_bytes() for path in fitted)]
        detail = refusal_detail(post_calibration(steady, pictures), 400, "invalid-request")
        assert "The model was fitted to " in detail
        assert " 0.png" not in detail


class TestAccess:
    def test_the_audit_log_has_what_was_done_and_why(self, client: TestClient, store: Path) -> None:
        body = post_calibration(client, good_images(9), station="line-3").json()
        post_calibration(client, [b"text"])
        client.delete(f"{URL}?station=line-3&reason=lamp+back", headers={"If-Match": "*"})
        done, failed, removed = list_actions(client, "model.calibrate")
        detail = done["detail"]
        assert (done["outcome"], done["target"]) == ("done", "tiny")
        assert (detail["station"], detail["reason"], detail["pictures"]) == ("line-3", "new lamp", 9)
        assert detail["reject"] == {"from": body["before"]["reject"], "to": body["threshold"]["reject"]}
        assert detail["calibration"] == body["threshold"]["calibration"]["id"]
        assert detail["fingerprint"] == body["origin"]["pictures"]
        assert (failed["outcome"], failed["detail"]["problem"]) == ("refused", "unsupported-media-type")
        assert removed["detail"]["removed"] == detail["calibration"]
        assert removed["detail"]["reason"] == "lamp back"
        assert removed["detail"]["version"] == detail["version"]
        was, is_now = detail["reject"]["from"], detail["reject"]["to"]
        assert removed["detail"]["reject"] == {"from": is_now, "to": was}
        assert not list(store.glob(f"tiny/{models_folder.CALIBRATIONS}/*/*"))
