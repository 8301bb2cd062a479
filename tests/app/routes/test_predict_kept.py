"""Predictions and the history: asked for twice, answered once; what is kept, and what is not."""

import io
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx2
import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.app.conftest import history_of, remove_files
from tests.app.support.guard import assert_problem
from tests.support.waiting import eventually

Images = dict[str, list[bytes]]
ReadPng = Callable[[bytes], NDArray[np.uint8]]

PREDICT = "/v1/models/tiny/predict"
REPLAYED = "Idempotency-Replayed"


def post(
    client: TestClient, data: bytes, key: str | None = None, query: str = "", **headers: str
) -> httpx2.Response:
    if key is not None:
        headers["Idempotency-Key"] = key
    return client.post(PREDICT + query, content=data, headers={"Content-Type": "image/png", **headers})


def kept(client: TestClient) -> list[str]:
    """The ids of all that is in the history, when all is filed that was answered."""
    eventually(lambda: not history_of(client).backlog)
    page = client.get("/v1/inspections", params={"limit": 500}).json()
    return [one["inspection_id"] for one in page["inspections"]]


class TestIdempotency:
    def test_repeated_request_gets_the_first_answer(self, client: TestClient, tiny_images: Images) -> None:
        query = "?part_id=P-1&station=line-3"
        first = post(client, tiny_images["defect"][0], "k", query)
        assert first.status_code == 200
        assert REPLAYED not in first.headers
        again = post(client, tiny_images["defect"][0], "k", query)
        assert (again.status_code, again.headers[REPLAYED]) == (200, "true")
        assert again.json() == first.json()
        form = client.post(
            PREDICT,
            files={"file": tiny_images["defect"][0]},
            data={"part_id": "P-1", "station": "line-3"},
            headers={"Idempotency-Key": "k"},
        )
        assert form.json() == first.json()
        assert kept(client) == [first.json()["inspection_id"]]
        other = post(client, tiny_images["defect"][0], "another", query)
        assert other.json()["inspection_id"] != first.json()["inspection_id"]

    def test_name_of_the_file_may_differ(self, client: TestClient, tiny_images: Images) -> None:
        names = [r"C:\images\top.png", "other.png", None]
        answers = [
            client.post(
                PREDICT, files={"file": (name, tiny_images["good"][0])}, headers={"Idempotency-Key": key}
            ).json()
            for name, key in zip(names, ("k", "k", "l"), strict=True)
        ]
        assert answers[0] == answers[1]
        assert [answer["file_name"] for answer in answers[1:]] == ["top.png", None]
        given = post(client, tiny_images["good"][0], query="?file_name=given.png").json()
        assert given["file_name"] == "given.png"
        kept(client)
        [one] = client.get("/v1/inspections", params={"limit": 1}).json()["inspections"]
        assert one["file_name"] == "given.png"
        assert one["margin"] == given["score"] - given["threshold"]["reject"]

    def test_drawings_wait_until_their_map_is_filed(self, client: TestClient, tiny_images: Images) -> None:
        filing = threading.Event()
        history_of(client).run_in_writer(partial(filing.wait, 60))
        first = post(client, tiny_images["good"][0], "k")
        threading.Timer(0.3, filing.set).start()
        again = post(client, tiny_images["good"][0], "k", Accept="application/x-npy")
        assert (again.status_code, again.headers[REPLAYED]) == (200, "true")
        assert again.headers["X-Inspection-ID"] == first.json()["inspection_id"]

    def test_drawings_are_made_again(
        self, client: TestClient, tiny_images: Images, read_png: ReadPng
    ) -> None:
        data = tiny_images["defect"][0]
        answers = {
            kind: [post(client, data, f"k-{kind[:5]}", Accept=kind) for _ in range(2)]
            for kind in ("image/png", "application/x-npy")
        }
        for kind, (first, again) in answers.items():
            assert again.headers[REPLAYED] == "true"
            assert again.headers["content-type"] == kind
            for name in ("X-Inspection-ID", "X-Decision", "X-Score", "X-P-Value", "X-Image-Width"):
                assert again.headers[name] == first.headers[name]
        first, again = answers["application/x-npy"]
        maps = [np.load(io.BytesIO(one.content), allow_pickle=False) for one in (first, again)]
        assert maps[1].dtype == np.float32
        np.testing.assert_array_equal(maps[1], maps[0].astype(np.float16))  # as it is kept
        first, again = answers["image/png"]
        difference = np.abs(read_png(again.content).astype(int) - read_png(first.content))
        assert difference.max() <= 6  # the next of 256 colours, for the same reason
        plain = post(client, data, "k-image").json()
        inline = post(client, data, "k-image", "?inline=overlay&inline=heatmap").json()
        assert set(inline.pop("inline")) == {"overlay", "heatmap"}
        assert inline == plain
        assert len(kept(client)) == 2

    def test_another_request_under_the_same_key_is_refused(
        self, client: TestClient, tiny_images: Images
    ) -> None:
        first, other = tiny_images["good"][:2]
        before = post(client, first, "k", "?part_id=P-1").json()
        same = "?part_id=P-1"
        for data, query in (
            (other, same),
            (first, ""),
            (first, "?part_id=P-2"),
            (first, f"{same}&regions=false"),
        ):
            response = post(client, data, "k", query)
            assert "'k'" in assert_problem(response, 409, "idempotency-key-reused")
        version = f"/v1/models/tiny/versions/{before['model']['version']}/predict{same}"
        named = client.post(version, content=first, headers={"Idempotency-Key": "k"})
        assert_problem(named, 409, "idempotency-key-reused")
        assert post(client, first, "k", "?part_id=P-1").json() == before
        assert kept(client) == [before["inspection_id"]]

    def test_failed_request_leaves_the_key_free(self, client: TestClient, tiny_images: Images) -> None:
        good = tiny_images["good"][0]
        assert post(client, good[:500], "k").status_code == 422
        assert post(client, b"", "k").status_code == 415
        assert post(client, good, "k", "?timeout_ms=1").status_code == 504
        answer = post(client, good, "k")
        assert answer.status_code == 200
        assert kept(client) == [answer.json()["inspection_id"]]

    def test_map_that_retention_removed_is_not_found(self, client: TestClient, tiny_images: Images) -> None:
        data = tiny_images["good"][0]
        first = post(client, data, "k").json()
        kept(client)
        remove_files(history_of(client))
        for accept in ("image/png", "application/x-npy"):
            detail = assert_problem(post(client, data, "k", Accept=accept), 404, "unknown-inspection")
            assert "application/json" in detail
        assert post(client, data, "k").json() == first

    @pytest.mark.one_server("damages files of the history folder")
    def test_map_that_the_disk_lost_is_gone(self, client: TestClient, tiny_images: Images) -> None:
        data = tiny_images["good"][0]
        first = post(client, data, "k").json()
        kept(client)
        history_of(client).files.map_path(first["inspection_id"]).unlink()
        for accept in ("image/png", "application/x-npy"):
            detail = assert_problem(post(client, data, "k", Accept=accept), 410, "files-lost")
            assert "application/json" in detail
            assert "a backup" in detail
        assert post(client, data, "k").json() == first

    def test_wrong_keys_and_keys_without_storing_are_refused(
        self, service: TestClient, tiny_images: Images
    ) -> None:
        good = tiny_images["good"][0]
        response = post(service, good, "k", "?store=false")
        assert "store=true" in assert_problem(response, 400, "invalid-request")
        for key in ("", "a b", "x" * 201, "\x7f"):
            assert_problem(post(service, good, key), 400, "invalid-request")
        longest = "~" * 200
        assert REPLAYED not in post(service, good, longest).headers
        assert REPLAYED in post(service, good, longest).headers


class TestStore:
    def test_what_is_not_stored_leaves_nothing(self, client: TestClient, tiny_images: Images) -> None:
        answer = post(client, tiny_images["defect"][0], query="?store=false&part_id=P").json()
        assert answer["links"] is None
        assert answer["decision"] == "REJECT"
        stored = post(client, tiny_images["good"][0]).json()
        assert kept(client) == [stored["inspection_id"]]
        assert_problem(client.get(f"/v1/inspections/{answer['inspection_id']}"), 404, "unknown-inspection")
        assert_problem(client.get("/v1/parts/P"), 404, "unknown-inspection")
        pictures = history_of(client).files
        assert pictures.read_image(answer["image"]["sha256"]) is None
        assert pictures.read_map_file(answer["inspection_id"]) is None
        assert pictures.read_image(stored["image"]["sha256"]) == tiny_images["good"][0]


def test_deadlines_of_requests_and_of_the_server_hold(
    tiny_bundle_store: Path, tmp_path: Path, tiny_images: Images
) -> None:
    data = tiny_images["good"][0]
    settings = Settings(models=tiny_bundle_store, history=tmp_path / "history", deadline_ms=1)
    with TestClient(create_app(settings)) as client:
        assert_problem(post(client, data), 504, "deadline-exceeded")
        assert post(client, data, query="?timeout_ms=600000").status_code == 200
        response = post(client, data, query="?timeout_ms=1", Accept="image/png")
        assert "1 ms" in assert_problem(response, 504, "deadline-exceeded")
        assert len(kept(client)) == 1


@pytest.mark.parametrize("milliseconds", ["0", "600001", "soon", ""])
def test_impossible_deadlines_are_refused(
    service: TestClient, tiny_images: Images, milliseconds: str
) -> None:
    response = post(service, tiny_images["good"][0], query=f"?timeout_ms={milliseconds}")
    assert "timeout_ms" in assert_problem(response, 400, "invalid-request")
