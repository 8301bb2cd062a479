"""Learning from reviewed inspections by a job: what is used, what is refused, and what is published."""

import hashlib
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from flows.fastflow.bundle import bundle, models_folder
from tests.app.conftest import history_of
from tests.app.support.bundles import list_folder
from tests.app.support.calibrations import good_images, post_calibration
from tests.app.support.services import inspect_and_review, list_actions, read_json, refusal_detail
from tests.conftest import picture, png

URL = "/v1/models/tiny/learning"
LEARN: dict[str, Any] = {"kind": "learn", "product": "tiny"}


def defect(i: int) -> bytes:
    return png(picture(7000 + i, defect=True))


def learn(client: TestClient) -> dict[str, Any]:
    """Run a job to its end, and return it."""
    response = client.post("/v1/jobs", json=LEARN)
    assert response.status_code == 202, response.text
    job: dict[str, Any] = response.json()
    while job["state"] in ("queued", "running"):
        time.sleep(0.1)
        job = client.get(response.headers["Location"]).json()
    return job


def test_reviewed_defects_make_a_version(client: TestClient, store: Path, first: str) -> None:
    for i in range(8):
        inspect_and_review(client, defect(i), "defect")
    inspect_and_review(client, defect(0) + b" ", "defect")  # the same pixels in another file
    inspect_and_review(client, good_images(1)[0], "good")
    before = read_json(client, URL)
    assert (before["version"], before["defects"], before["good"]) == (first, 9, 1)
    assert (before["left_out"], before["obstacle"]) == (0, None)
    job = learn(client)
    assert (job["state"], job["share"], job["stage"]) == ("succeeded", 1, "learn"), job
    assert job["settings"] == {"version": first}
    result = job["result"]
    assert (result["from_version"], models_folder.active_version(store, "tiny")) == (first, first)
    assert (result["learned"]["defects"], result["learned"]["copies"]) == (8, 1)
    assert job["outcome"] == "Activate the version by hand to use it."
    manifest = bundle.verify(store / "tiny" / result["version"])
    assert manifest.learned is not None
    assert result["learned"] == manifest.learned.model_dump()
    [entry] = list_actions(client, "model.learn")
    assert (entry["target"], entry["outcome"]) == ("tiny", "done")
    assert entry["detail"]["version"] == result["version"]
    assert read_json(client, URL)["obstacle"] == "already-learned"
    refused = client.post("/v1/jobs", json=LEARN)
    assert f"tiny/{result['version']} has learned" in refusal_detail(refused, 409, "conflict")
    activate = f"/v1/models/tiny/versions/{result['version']}:activate"
    assert client.post(activate).status_code == 200
    learned = good_images(1)
    assert "fitted to 0.png" in refusal_detail(post_calibration(client, learned), 400, "invalid-request")


def test_learning_that_cannot_succeed_is_refused(client: TestClient) -> None:
    inspect_and_review(client, defect(0), "defect")
    detail = refusal_detail(client.post("/v1/jobs", json=LEARN), 409, "conflict")
    assert detail.startswith("Learning needs 5 images reviewed as defects; there are 1.")
    for i in range(1, 5):
        inspect_and_review(client, defect(i), "defect")
    later = LEARN | {"settings": {"since": "2099-01-01T00:00:00Z"}}
    assert "there are 0" in refusal_detail(client.post("/v1/jobs", json=later), 409, "conflict")
    unknown = client.post("/v1/jobs", json=LEARN | {"product": "tini"})
    refusal_detail(unknown, 404, "unknown-model")


@pytest.mark.one_server("damages files of the history folder")
def test_damaged_image_is_a_failed_job(client: TestClient, store: Path) -> None:
    identifiers = [inspect_and_review(client, defect(i), "defect") for i in range(5)]
    image = history_of(client).files.image_path(hashlib.sha256(defect(3)).hexdigest())
    image.write_bytes(b"damaged")
    before = list_folder(store)
    job = learn(client)
    assert job["state"] == "failed"
    assert identifiers[3] in job["error"]
    assert list_folder(store) == before
