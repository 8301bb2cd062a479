"""Trainings as jobs of a real server: `kill -9` of the server and of the job lose nothing."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.fastflow.bundle import models_folder
from flows.fastflow.bundle.bundle import verify
from tests.support.server import Server
from tests.support.waiting import eventually

Job = dict[str, Any]


class Teaching:
    """A server with a product of a dozen images, whose versions take over by hand."""

    def __init__(self, folder: Path, images: list[bytes]) -> None:
        self.models = folder / "models"
        self.models.mkdir()
        self.server = Server(self.models, folder / "server")
        self.server.start()
        self.send("POST", "/v1/products", json={"name": "part", "takeover": "manual"})
        files = [("file", (f"{i}.png", image)) for i, image in enumerate(images)]
        answer = self.send("POST", "/v1/products/part/images", params={"label": "good"}, files=files)
        assert answer["counts"] == {"stored": len(images)}

    def send(self, method: str, path: str, **arguments: Any) -> Any:
        with self.server.client() as client:
            response = client.request(method, path, **arguments)
        assert response.is_success, response.text
        return response.json()

    def start(self, **settings: Any) -> str:
        job = self.send("POST", "/v1/jobs", json={"kind": "train", "product": "part", "settings": settings})
        identifier: str = job["id"]
        return identifier

    def job(self, identifier: str) -> Job:
        found: Job = self.send("GET", f"/v1/jobs/{identifier}")
        return found

    def wait(self, identifier: str, holds: Callable[[Job], bool]) -> Job:
        eventually(lambda: holds(self.job(identifier)))
        return self.job(identifier)

    def child(self) -> int | None:
        """Return the process id of the running command, if any."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = path.read_bytes()
            except OSError:
                continue
            if b"--no-activate" in command and str(self.models).encode() in command:
                return int(path.parent.name)
        return None

    def require_whole_versions(self) -> None:
        for version in models_folder.versions(self.models, "part"):
            verify(self.models / "part" / version)


@pytest.fixture
def teaching(tmp_path: Path, tiny_images: dict[str, list[bytes]]) -> Iterator[Teaching]:
    teaching = Teaching(tmp_path, tiny_images["good"][:12])
    yield teaching
    teaching.server.kill()


def ended(job: Job) -> bool:
    return job["state"] not in ("queued", "running")


def test_training_survives_kills(teaching: Teaching) -> None:
    identifier = teaching.start(epochs=3)
    teaching.wait(identifier, lambda job: job["stage"] == "fit")
    teaching.server.kill()
    eventually(lambda: teaching.child() is None)
    teaching.server.start()
    teaching.wait(identifier, lambda job: job["state"] == "running" and teaching.child() is not None)
    child = teaching.child()
    assert child is not None
    os.kill(child, signal.SIGKILL)
    job = teaching.wait(identifier, ended)
    assert (job["state"], job["resumed"]) == ("succeeded", 2), job
    assert "takeover is manual" in job["outcome"]
    assert models_folder.versions(teaching.models, "part") == [job["result"]["version"]]
    teaching.require_whole_versions()
    assert models_folder.active_version(teaching.models, "part") is None
    cancelled = teaching.start(epochs=4)
    teaching.wait(cancelled, lambda _: teaching.child() is not None)
    teaching.server.stop()
    assert teaching.child() is None
    teaching.server.start()
    assert teaching.send("POST", f"/v1/jobs/{cancelled}:cancel")["state"] == "cancelled"
    assert teaching.child() is None


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["server", "job"])
def test_kills_at_ten_moments_lose_no_job(teaching: Teaching, victim: str) -> None:
    draw = random.Random(46)
    begun = time.monotonic()
    teaching.wait(teaching.start(epochs=3, seed=0), ended)
    length = time.monotonic() - begun
    for seed in range(1, 11):
        identifier = teaching.start(epochs=3, seed=seed)
        time.sleep(draw.uniform(0, length))
        if victim == "server":
            teaching.server.kill()
            eventually(lambda: teaching.child() is None)
            teaching.require_whole_versions()
            teaching.server.start()
        elif (child := teaching.child()) is not None:
            os.kill(child, signal.SIGKILL)
        job = teaching.wait(identifier, ended)
        assert job["state"] == "succeeded", job
        assert job["result"]["version"] in models_folder.versions(teaching.models, "part")
    teaching.require_whole_versions()
    assert len(models_folder.versions(teaching.models, "part")) == 11
    assert teaching.send("GET", "/v1/products/part")["images"]["good"] == 12
