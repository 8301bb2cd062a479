"""Trainings as jobs of a real server: `kill -9` of the server and of the job lose nothing."""

import hashlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flows.fastflow.bundle import models_folder
from flows.fastflow.bundle.bundle import verify
from tests.support.server import Server
from tests.support.waiting import eventually

logger = logging.getLogger(__name__)

Job = dict[str, Any]


class Teaching:
    """A server with a product of a dozen images, whose versions take over by hand."""

    def __init__(self, folder: Path, images: list[bytes]) -> None:
        self.images = len(images)
        self.models = folder / "models"
        self.models.mkdir()
        self.server = Server(self.models, folder / "server")
        self.client = self.server.client()
        self.server.start()
        self.send("POST", "/v1/products", json={"name": "part", "takeover": "manual"})
        files = [("file", (f"{i}.png", image)) for i, image in enumerate(images)]
        answer = self.send("POST", "/v1/products/part/images", params={"label": "good"}, files=files)
        assert answer["counts"] == {"stored": len(images)}

    def send(self, method: str, path: str, **arguments: Any) -> Any:
        response = self.client.request(method, path, **arguments)
        assert response.is_success, response.text
        return response.json()

    def start(self, kind: str, **settings: Any) -> str:
        if kind == "train":
            settings["epochs"] = 8
        job = self.send("POST", "/v1/jobs", json={"kind": kind, "product": "part", "settings": settings})
        identifier: str = job["id"]
        return identifier

    def run_with_kills(self, kind: str, seed: int, kills: Sequence[tuple[str, float]]) -> None:
        """Run a job, kill the server or the job at shares of it, and require that it succeeds."""
        identifier = self.start(kind, seed=seed)
        for victim, share in kills:
            job = self.wait(identifier, partial(_has_done, share))
            logger.info("%s: kill -9 of the %s at %s, %s", kind, victim, job["stage"], job["share"])
            child = self.child()
            if victim == "server":
                self.server.kill()
                eventually(lambda: self.child() is None)
                self.require_whole_versions()
                self.server.start()
            elif child is not None:
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
        job = self.wait(identifier, ended)
        assert job["state"] == "succeeded", job["error"]
        assert job["resumed"] <= len(kills)
        assert job["result"]["version"] in models_folder.versions(self.models, "part")
        assert self.send("GET", "/v1/products/part")["images"]["good"] == self.images
        stored = (self.server.history / "products/part").glob("*.png")
        names = {hashlib.sha256(path.read_bytes()).hexdigest(): path.stem for path in stored}
        assert len(names) == self.images
        assert all(sha256 == name for sha256, name in names.items())

    def job(self, identifier: str) -> Job:
        found: Job = self.send("GET", f"/v1/jobs/{identifier}")
        return found

    def wait(self, identifier: str, holds: Callable[[Job], bool]) -> Job:
        """Wait until something holds for a job, and return the job."""
        seen: list[Job] = []

        def is_so() -> bool:
            time.sleep(0.05)  # to ask takes time from the job
            seen[:] = [self.job(identifier)]
            return holds(seen[0])

        eventually(is_so)
        return seen[0]

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
def teaching(tmp_path: Path, tiny_data: Path) -> Iterator[Teaching]:
    images = sorted((tiny_data / "tiny/train/good").glob("*.png"))[:12]
    teaching = Teaching(tmp_path, [image.read_bytes() for image in images])
    yield teaching
    teaching.client.close()
    teaching.server.kill()


def ended(job: Job) -> bool:
    return job["state"] not in ("queued", "running")


def _has_done(share: float, job: Job) -> bool:
    """Tell if a job has reported a share, of 0 too, since its process runs; or if it has ended."""
    return ended(job) or (job["state"] == "running" and job["stage"] is not None and job["share"] >= share)


def test_training_survives_kills(teaching: Teaching) -> None:
    teaching.run_with_kills("train", 0, [("server", 0.1), ("job", 0.6)])
    teaching.require_whole_versions()
    assert models_folder.active_version(teaching.models, "part") is None


def test_stopped_server_keeps_a_job_that_is_cancelled_later(teaching: Teaching) -> None:
    identifier = teaching.start("train", seed=1)
    teaching.wait(identifier, lambda _: teaching.child() is not None)
    teaching.server.stop()
    assert teaching.child() is None
    teaching.server.start()
    assert teaching.send("POST", f"/v1/jobs/{identifier}:cancel")["state"] == "cancelled"
    assert teaching.child() is None


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["starter", "train"])
@pytest.mark.parametrize("victim", ["server", "job"])
def test_kills_at_ten_moments_lose_nothing(teaching: Teaching, victim: str, kind: str) -> None:
    for i in range(10):
        teaching.run_with_kills(kind, i, [(victim, i / 10)])
    teaching.require_whole_versions()
