"""Real servers that share their models: jobs, activations, and publishers that are killed."""

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from flows.fastflow.bundle import models_folder
from flows.fastflow.bundle.bundle import verify
from tests.app.support.bundles import make_archive
from tests.support.postgres import Postgres
from tests.support.server import Server
from tests.support.waiting import eventually

logger = logging.getLogger(__name__)


@pytest.fixture
def servers(tmp_path: Path, postgres: Postgres, s3_url: str) -> Iterator[list[Server]]:
    with postgres.database() as url, ExitStack() as stack:
        started = []
        for name in ("a", "b"):
            (tmp_path / name / "models").mkdir(parents=True)
            shared = {"database": url, "store": s3_url}
            server = Server(tmp_path / name / "models", tmp_path / name, **shared)
            stack.callback(server.kill)
            server.start()
            started.append(server)
        yield started


def send(server: Server, method: str, path: str, **arguments: Any) -> Any:
    with server.client() as client:
        response = client.request(method, path, **arguments)
    assert response.is_success, response.text
    return response.json() if response.content else None


def run_job(server: Server, kind: str, **settings: Any) -> dict[str, Any]:
    job = send(server, "POST", "/v1/jobs", json={"kind": kind, "product": "part", "settings": settings})

    def has_ended() -> bool:
        return send(server, "GET", f"/v1/jobs/{job['id']}")["state"] not in ("queued", "running")

    eventually(has_ended)
    ended: dict[str, Any] = send(server, "GET", f"/v1/jobs/{job['id']}")
    assert ended["state"] == "succeeded", ended["error"]
    return ended


def serving(server: Server) -> str | None:
    shown = send(server, "GET", "/v1/models/part")
    return next((version["version"] for version in shown["versions"] if version["loaded"]), None)


@pytest.mark.slow
def test_what_jobs_make_serves_on_all_servers(servers: list[Server], tiny_data: Path) -> None:
    a, b = servers
    images = [path.read_bytes() for path in sorted((tiny_data / "tiny/train/good").glob("*.png"))[:24]]
    files = [("file", (f"{i}.png", image)) for i, image in enumerate(images)]
    send(a, "POST", "/v1/products", json={"name": "part", "takeover": "manual"})
    send(a, "POST", "/v1/products/part/images", params={"label": "good"}, files=files[:12])
    first = run_job(a, "starter")["result"]["version"]
    second = run_job(a, "train", epochs=2)["result"]["version"]
    waits = []
    for version in (first, second, first):
        send(a, "POST", f"/v1/models/part/versions/{version}:activate")
        begun = time.monotonic()
        eventually(lambda version=version: serving(b) == version)  # type: ignore[misc]
        waits.append(time.monotonic() - begun)
    logger.info("loaded by the other server after %s s", ", ".join(f"{wait:.2f}" for wait in waits))
    before = send(b, "GET", "/v1/models/part/calibrations")["threshold"]["calibration"]
    send(a, "POST", "/v1/products/part/images", params={"label": "good"}, files=files[12:])
    run_job(a, "calibrate")
    eventually(lambda: send(b, "GET", "/v1/models/part/calibrations")["threshold"]["calibration"] != before)
    run_job(a, "evaluate", version=second)
    verify(b.models / "part" / first)
    assert models_folder.versions(b.models, "part") == sorted([first, second])
    assert {path.name for path in (b.models / "backbones").iterdir()} == {
        path.name for path in (a.models / "backbones").iterdir()
    }


@pytest.mark.slow
def test_killed_publisher_leaves_nothing_half_published(
    servers: list[Server], tiny_bundle_store: Path, tmp_path: Path
) -> None:
    a, b = servers
    models = shutil.copytree(tiny_bundle_store, tmp_path / "models")
    for server in servers:
        shutil.copytree(models / "backbones", server.models / "backbones", dirs_exist_ok=True)
    begun = time.monotonic()
    assert upload(a, make_archive(models, "v0")) == 201
    whole = time.monotonic() - begun
    published = 0
    for i in range(10):
        archive = make_archive(models, f"v{i + 1}")
        publisher = Thread(target=lambda data=archive: upload(a, data))
        publisher.start()
        time.sleep(whole * i / 20)
        a.kill()
        publisher.join()
        is_published = f"v{i + 1}" in models_folder.versions(b.models, "tiny")
        a.start()
        repeated = upload(b, archive)
        published += repeated == 409
        assert repeated == 409 if is_published else repeated in (201, 409)
        activated = send(b, "POST", f"/v1/models/tiny/versions/v{i + 1}:activate")
        assert activated["active"] == f"v{i + 1}"
        eventually(lambda i=i: models_folder.active_version(a.models, "tiny") == f"v{i + 1}")  # type: ignore[misc]
        verify(b.models / "tiny" / f"v{i + 1}")
    logger.info("published before the kill: %d of 10", published)


def upload(server: Server, archive: bytes) -> int | None:
    """Upload a version and return the status; None if the server is killed meanwhile."""
    with server.client() as client, suppress(httpx.TransportError):
        headers = {"Content-Type": "application/zip"}
        return client.post("/v1/models/tiny/versions", content=archive, headers=headers).status_code
    return None
