"""Versions that come over HTTP, honest and hostile ones."""

import re
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from flows.fastflow.bundle import bundle, models_folder
from tests.app.conftest import Serve
from tests.app.support.bundles import list_folder, make_archive, repack
from tests.app.support.services import predict, refusal_detail
from tests.conftest import picture, png
from tests.support.waiting import eventually

ZIP = {"Content-Type": "application/zip"}
Images = dict[str, list[bytes]]


def upload(client: TestClient, data: bytes, category: str = "tiny") -> httpx2.Response:
    return client.post(f"/v1/models/{category}/versions", content=data, headers=ZIP)


def acts(client: TestClient) -> list[tuple[str, str, str]]:
    return [
        (entry["action"], entry["target"], entry["outcome"])
        for entry in reversed(client.get("/v1/audit").json()["entries"])
        if entry["action"] != "model.serves"
    ]


class TestUpload:
    def test_a_version_comes_in_and_does_not_serve(self, client: TestClient, store: Path) -> None:
        before = models_folder.active_version(store, "tiny")
        response = upload(client, make_archive(store, "v2"))
        assert response.status_code == 201, response.text
        assert response.json() == {"category": "tiny", "version": "v2"}
        assert response.headers["Location"] == "/v1/models/tiny/versions/v2"
        found = client.get(response.headers["Location"]).json()
        assert (found["version"], found["active"], found["loaded"]) == ("v2", False, False)
        assert models_folder.active_version(store, "tiny") == before
        assert predict(client, png(picture(1)))["model"]["version"] == before
        bundle.verify(store / "tiny" / "v2")
        assert acts(client) == [("model.upload", "tiny", "begun"), ("model.upload", "tiny", "done")]

    def test_of_a_category_that_is_new(self, client: TestClient, store: Path) -> None:
        assert upload(client, make_archive(store, "v1", "nut"), "nut").status_code == 201
        assert client.get("/v1/models/nut").json()["active"] is None
        activated = client.post("/v1/models/nut/versions/v1:activate", params={"reason": "the first"})
        assert activated.status_code == 200
        entry = client.get("/v1/audit", params={"action": "model.activate"}).json()["entries"][0]
        assert (entry["target"], entry["detail"]["reason"]) == ("nut/v1", "the first")
        assert client.post("/v1/models/nut/predict", content=png(picture(1))).status_code == 200

    def test_one_that_exists_is_never_overwritten(self, client: TestClient, store: Path) -> None:
        data = make_archive(store, "v2")
        upload(client, data)
        before = list_folder(store)
        detail = refusal_detail(upload(client, data), 409, "conflict")
        assert detail == "Version 'v2' of 'tiny' exists; versions are never overwritten."
        assert list_folder(store) == before

    @pytest.mark.parametrize("category", ["%2e%2e", "backbones", "a%00b"])
    def test_of_a_category_that_can_be_none(self, client: TestClient, store: Path, category: str) -> None:
        before = list_folder(store)
        data = repack(make_archive(store, "v2"), lambda d: d.update(category=category))
        response = client.post(f"/v1/models/{category}/versions", content=data, headers=ZIP)
        assert response.status_code == 422
        assert list_folder(store) == before

    @pytest.mark.parametrize("kind", ["text/plain", ""])
    def test_of_another_kind(self, client: TestClient, store: Path, kind: str) -> None:
        response = client.post(
            "/v1/models/tiny/versions", content=make_archive(store, "v2"), headers={"Content-Type": kind}
        )
        assert "application/zip" in refusal_detail(response, 415, "unsupported-media-type")


HOSTILE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "changed": (
        lambda data: repack(data, lambda d: d["files"].update({"golden/0.png": "0" * 64})),
        "golden/0.png was changed",
    ),
    "bomb": (lambda data: repack(data, files={"report/x": bytes(3_000_000)}), "more than 2,000,000 bytes"),
    "golden score": (
        lambda data: repack(data, lambda d: d["golden"][0].update(score=99.0)),
        "golden image golden/0.png scores",
    ),
}


@pytest.fixture(scope="module")
def wary(
    tiny_bundle_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[TestClient, Path]]:
    """One service for all: what is refused leaves no trace, so they cannot disturb each other."""
    store = shutil.copytree(tiny_bundle_store, tmp_path_factory.mktemp("hostile") / "models")
    settings = Settings(
        models=store, history=store.parent / "history", max_bundle_bytes=2_000_000, preload=False
    )
    with TestClient(create_app(settings)) as client:
        yield client, store


class TestHostile:
    @pytest.mark.parametrize("name", HOSTILE)
    def test_is_refused_with_the_reason_and_leaves_nothing(
        self, wary: tuple[TestClient, Path], name: str
    ) -> None:
        client, store = wary
        change, reason = HOSTILE[name]
        data = change(make_archive(store, "v2"))
        before = list_folder(store)
        detail = refusal_detail(upload(client, data), 422, "rejected-bundle")
        assert re.search(reason, detail), detail
        assert list_folder(store) == before
        assert acts(client)[-1] == ("model.upload", "tiny", "refused")

    def test_more_bytes_than_allowed(self, wary: tuple[TestClient, Path]) -> None:
        client, store = wary
        before = list_folder(store)
        refusal_detail(upload(client, bytes(2_000_001)), 413, "too-large")

        def without_length() -> Iterator[bytes]:
            for _ in range(21):
                yield bytes(100_000)

        response = client.post("/v1/models/tiny/versions", content=without_length(), headers=ZIP)
        refusal_detail(response, 413, "too-large")
        assert list_folder(store) == before


class TestInterrupted:
    @pytest.mark.one_server("watches the models folder of the server that gets the upload")
    def test_an_upload_that_is_aborted_leaves_nothing(self, store: Path, serve_http: Serve) -> None:
        data = make_archive(store, "v2")
        before = list_folder(store)
        with serve_http(create_app(Settings(models=store))) as url:
            for sent in (0, 100, len(data) // 2, len(data) - 1):
                host, port = url.removeprefix("http://").split(":")
                with socket.create_connection((host, int(port))) as connection:
                    head = (
                        f"POST /v1/models/tiny/versions HTTP/1.1\r\nHost: {host}:{port}\r\n"
                        f"Content-Type: application/zip\r\nContent-Length: {len(data)}\r\n\r\n"
                    )
                    connection.sendall(head.encode() + data[:sent])
                    eventually(lambda: list_folder(store) != before)
                eventually(lambda: list_folder(store) == before)
            # Nothing is held either: as many as are allowed can still come.
            with httpx2.Client(base_url=url, trust_env=False, timeout=60) as client:
                assert client.post("/v1/models/tiny/versions", content=data, headers=ZIP).status_code == 201
