"""False-reject rates: what is set decides, nobody's change is lost, and the audit log has all of them."""

from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from flows.fastflow.bundle import bundle, models_folder
from flows.fastflow.calibration import conformal
from tests.app.support.bundles import copy_version
from tests.app.support.calibrations import good_images, post_calibration
from tests.app.support.services import create_service, list_actions, predict, refusal_detail

Images = dict[str, list[bytes]]
URL = "/v1/models/tiny/thresholds"


def change(client: TestClient, if_match: str | None = "*", **body: Any) -> httpx2.Response:
    headers = {} if if_match is None else {"If-Match": if_match}
    return client.patch(URL, json={"reason": "Complaint 88", **body}, headers=headers)


def passed(client: TestClient, images: Images) -> tuple[bytes, float]:
    """A good part that passes, and a rate at which it would be rejected."""
    for image in images["good"]:
        answer = predict(client, image)
        if answer["decision"] == "PASS" and answer["p_value"] < 1:
            return image, answer["p_value"]
    raise AssertionError("every good part scores less than all those of calibration")


def tag(revision: int, body: dict[str, Any]) -> str:
    return f'"{revision}-{body["threshold"]["calibration"]["id"]}"'


def test_never_set_they_are_those_of_the_version(client: TestClient, store: Path) -> None:
    folder = models_folder.resolve(store, "tiny")
    manifest = bundle.read_manifest(folder)
    response = client.get(URL)
    assert response.headers["ETag"] == f'"0-{bundle.manifest_sha256(folder, manifest)[:12]}"'
    body = response.json()
    threshold = body.pop("threshold")
    unset = dict.fromkeys(("target_fpr", "review_fpr", "audit_share"))
    assert body == {"category": "tiny", "version": folder.name, **unset}
    assert (threshold.pop("pixel"), threshold.pop("review")) == (manifest.calibration.map_threshold, None)
    assert threshold.pop("fpr_at_95_confidence") == pytest.approx(1 - 0.05**0.1)  # of 10 images
    used = {"id": bundle.manifest_sha256(folder, manifest)[:12], "source": "bundle"}
    assert threshold == {**manifest.thresholds["float32"].model_dump(), "calibration": used}


def test_rates_give_thresholds_by_the_versions_own_calibration(client: TestClient, store: Path) -> None:
    scores = bundle.read_manifest(models_folder.resolve(store, "tiny")).calibration.scores
    response = change(client, client.get(URL).headers["ETag"], target_fpr=0.2, review_fpr=0.4)
    assert response.status_code == 200, response.text
    body = response.json()
    assert response.headers["ETag"] == tag(1, body)
    assert (body["target_fpr"], body["review_fpr"]) == (0.2, 0.4)
    assert body["threshold"]["reject"] == conformal.compute_threshold(scores, 0.2).reject
    assert body["threshold"]["review"] == conformal.compute_threshold(scores, 0.4).reject
    assert body["threshold"]["target_fpr"] == 0.2
    assert body["threshold"]["certified"] is True
    read = client.get(URL)
    assert (read.json(), read.headers["ETag"]) == (body, tag(1, body))


def test_what_is_left_out_stays_and_null_goes_back(client: TestClient) -> None:
    before = client.get(URL).json()
    change(client, target_fpr=0.2)
    both = change(client, review_fpr=0.4).json()
    assert (both["target_fpr"], both["review_fpr"]) == (0.2, 0.4)
    assert change(client, review_fpr=None).json()["target_fpr"] == 0.2
    assert change(client, target_fpr=None).json() == before


def test_the_decision_changes_and_the_score_does_not(client: TestClient, tiny_images: Images) -> None:
    image, rate = passed(client, tiny_images)
    before = predict(client, image)
    assert change(client, target_fpr=rate / 2, review_fpr=rate).status_code == 200
    between = predict(client, image)
    assert (between["decision"], between["threshold"]) == ("REVIEW", client.get(URL).json()["threshold"])
    assert change(client, target_fpr=rate, review_fpr=None).status_code == 200
    after = predict(client, image)
    assert after["decision"] == "REJECT"
    assert after["threshold"]["reject"] < after["score"] <= before["threshold"]["reject"]
    version = f"/v1/models/tiny/versions/{before['model']['version']}/predict?store=false"
    assert client.post(version, content=image).json()["decision"] == "REJECT"
    assert {each["score"] for each in (before, between, after)} == {before["score"]}


def test_they_outlive_the_process_and_hold_for_the_next_version(store: Path, tiny_images: Images) -> None:
    copy_version(store, "v2")
    with create_service(store) as client:
        image, rate = passed(client, tiny_images)
        body = change(client, target_fpr=rate).json()
    with create_service(store) as client:
        response = client.get(URL)
        assert (response.json(), response.headers["ETag"]) == (body, tag(1, body))
        assert client.post("/v1/models/tiny/versions/v2:activate").status_code == 200
        after = client.get(URL).json()
        assert after["threshold"].pop("calibration") != body["threshold"].pop("calibration")
        assert after == {**body, "version": "v2"}
        assert predict(client, image)["decision"] == "REJECT"


class TestIfMatch:
    @pytest.mark.parametrize(
        ("if_match", "status", "name"),
        [(None, 428, "precondition-required"), ('"9"', 412, "precondition-failed")],
    )
    def test_a_change_that_is_not_based_on_what_there_is(
        self, steady: TestClient, if_match: str | None, status: int, name: str
    ) -> None:
        refusal_detail(change(steady, if_match, target_fpr=0.2), status, name)
        assert steady.get(URL).headers["ETag"].startswith('"0-')
        assert steady.get(URL).json()["target_fpr"] is None

    def test_change_based_on_another_calibration_is_refused(self, store: Path) -> None:
        copy_version(store, "v2")
        with create_service(store) as client:
            tags = [client.get(URL).headers["ETag"]]
            assert post_calibration(client, good_images(9)).status_code == 201
            tags.append(client.get(URL).headers["ETag"])
            assert client.post("/v1/models/tiny/versions/v2:activate").status_code == 200
            for old in tags:
                refusal_detail(change(client, old, target_fpr=0.2), 412, "precondition-failed")
            assert change(client, client.get(URL).headers["ETag"], target_fpr=0.2).status_code == 200


WRONG: list[tuple[dict[str, Any], str]] = [
    *(({"target_fpr": rate}, "target_fpr") for rate in (0, 1, "x")),
    *(({"review_fpr": rate}, "review_fpr") for rate in (1, -0.1)),  # 0 is no review band
    ({"review_fpr": 0.1}, "must be more than target_fpr, 0.1; it was 0.1"),
    ({"target_fpr": 0.3, "review_fpr": 0.2}, "must be more than target_fpr, 0.3"),
    ({"threshold": 3.0}, "threshold: is unknown"),
    ({"target_fpr": 0.2, "reason": ""}, "reason"),
]


class TestRefused:
    @pytest.mark.parametrize(("body", "reason"), WRONG)
    def test_rates_that_cannot_be(self, steady: TestClient, body: dict[str, Any], reason: str) -> None:
        before = steady.get(URL).json()
        assert reason in refusal_detail(change(steady, **body), 400, "invalid-request")
        assert steady.get(URL).json() == before


class TestAudit:
    @pytest.mark.parametrize(
        ("if_match", "body", "name"),
        [('"9"', {"target_fpr": 0.2}, "precondition-failed"), ("*", {"review_fpr": 0.01}, "invalid-request")],
    )
    def test_has_what_was_refused_too(
        self, client: TestClient, if_match: str | None, body: dict[str, Any], name: str
    ) -> None:
        response = change(client, if_match, **body)
        [entry] = list_actions(client, "model.thresholds")
        assert (entry["outcome"], entry["request_id"]) == ("refused", response.headers["X-Request-ID"])
        detail = entry["detail"]
        assert (detail["reason"], detail["to"]) == ("Complaint 88", body)
        assert (detail["problem"], detail["refusal"]) == (name, response.json()["detail"])
