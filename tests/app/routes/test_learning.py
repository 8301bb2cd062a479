"""Learning from reviewed inspections over REST: what is used, what is refused, and what is published."""

import asyncio
import hashlib
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.errors.problems import Problem
from app.learning.reviews import LearningSet
from flows.fastflow.bundle import bundle, models_folder
from flows.fastflow.calibration.conformal import describe_promise
from flows.fastflow.learning.descriptions import DESCRIPTIONS
from tests.app.conftest import history_of
from tests.app.support.bundles import copy_version, list_folder
from tests.app.support.calibrations import good_images, post_calibration
from tests.app.support.services import list_actions, refusal_detail
from tests.conftest import picture, png
from tests.support.waiting import eventually

URL = "/v1/models/tiny/learning"


def defect(i: int) -> bytes:
    return png(picture(7000 + i, defect=True))


def review(client: TestClient, data: bytes, verdict: str = "defect") -> None:
    """Inspect an image, and review it."""
    path = client.post("/v1/models/tiny/predict", content=data).json()["links"]["inspection"]
    assert client.get(path).status_code == 200  # it is in the history
    body = {"verdict": verdict, "expected_revision": 0}
    assert client.post(f"{path}/reviews", json=body).status_code == 201


def state(client: TestClient, **query: str) -> dict[str, Any]:
    response = client.get(URL, params=query)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def test_reviewed_defects_make_a_version(client: TestClient, store: Path, first: str) -> None:
    for i in range(8):
        review(client, defect(i))
    review(client, defect(0) + b" ")  # the same pixels in another file
    review(client, good_images(1)[0], "good")
    before = state(client)
    assert (before["version"], before["defects"], before["good"]) == (first, 9, 1)
    assert (before["left_out"], before["obstacle"], before["progress"]) == (0, None, None)
    response = client.post(URL)
    assert response.status_code == 201, response.text
    body = response.json()
    version = body["version"]
    assert (body["from_version"], body["warnings"]) == (first, [])
    assert (body["learned"]["defects"], body["learned"]["copies"]) == (8, 1)
    assert response.headers["Location"] == f"/v1/models/tiny/versions/{version}"
    assert models_folder.active_version(store, "tiny") == first
    manifest = bundle.verify(store / "tiny" / version)
    assert manifest.learned is not None
    record = manifest.learned.model_dump()
    assert body["learned"] == {name: record[name] for name in body["learned"]}
    assert body["threshold"]["reject"] == manifest.thresholds["float32"].reject
    n, rate = body["threshold"]["n_calibration"], body["threshold"]["target_fpr"]
    assert body["promise"] == describe_promise(n, rate)
    details = client.get(response.headers["Location"]).json()["details"]
    assert details["learned"] == body["learned"]
    [entry] = list_actions(client, "model.learn")
    assert (entry["target"], entry["outcome"]) == ("tiny", "done")
    assert entry["detail"]["version"] == version
    assert entry["detail"]["learned"] == body["learned"]
    assert state(client)["obstacle"] == "already-learned"
    assert f"tiny/{version} has learned" in refusal_detail(client.post(URL), 409, "conflict")
    assert client.post(f"{response.headers['Location']}:activate").status_code == 200
    learned = good_images(1)
    assert "fitted to 0.png" in refusal_detail(post_calibration(client, learned), 400, "invalid-request")


def test_one_run_at_a_time_and_for_the_serving_version(client: TestClient, store: Path) -> None:
    for i in range(5):
        review(client, defect(i))
    copy_version(store, "v2")
    before = list_folder(store)
    with ThreadPoolExecutor() as threads:
        learning = threads.submit(client.post, URL)
        eventually(lambda: state(client)["progress"] is not None)
        assert state(client)["obstacle"] == "running"
        assert "is learning already" in refusal_detail(client.post(URL), 409, "conflict")
        other = bundle.read_manifest(store / "tiny/v2").model_copy(update={"category": "other"})
        images = LearningSet(store, other, [], [], None, 0, None)
        with pytest.raises(Problem) as refused:
            asyncio.run(client.app.state.learning.learn(images))  # type: ignore[attr-defined]
        assert refused.value.detail == "Another category is learning; try again later."
        assert client.post("/v1/models/tiny/versions/v2:activate").status_code == 200
        detail = refusal_detail(learning.result(), 409, "conflict")
    assert detail.startswith("Another version serves")
    assert list_folder(store) == before
    assert state(client)["progress"] is None


def test_killed_run_leaves_no_version(client: TestClient, store: Path) -> None:
    for i in range(5):
        review(client, defect(i))
    before = list_folder(store)

    def kill() -> bool:
        children = [one for one in multiprocessing.active_children() if one.name == "learning"]
        for child in children:
            child.kill()
        return bool(children)

    with ThreadPoolExecutor() as threads:
        learning = threads.submit(client.post, URL)
        eventually(kill)
        refusal_detail(learning.result(), 500, "internal")
    assert list_folder(store) == before
    client.app.state.learning.end()  # type: ignore[attr-defined]
    refusal_detail(client.post(URL), 503, "draining")
    assert list_folder(store) == before


def test_damaged_version_is_refused(client: TestClient, store: Path, first: str) -> None:
    for i in range(5):
        review(client, defect(i))
    (store / "tiny" / first / DESCRIPTIONS).write_bytes(b"damaged")
    assert refusal_detail(client.post(URL), 409, "conflict").startswith("A file of the version is missing or")


def test_changed_image_is_named(client: TestClient) -> None:
    for i in range(5):
        review(client, defect(i))
    path = history_of(client).files.image_path(hashlib.sha256(defect(3)).hexdigest())
    path.write_bytes(b"damaged")
    assert refusal_detail(client.post(URL), 409, "conflict").endswith(" was changed.")
