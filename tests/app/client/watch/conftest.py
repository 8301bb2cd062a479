"""A camera's folder, a watcher of it, and what it tells."""

import errno
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.client import Client, Inspection
from app.client.watch.job import WatchJob
from app.client.watch.outcome import ImageOutcome
from app.client.watch.watcher import Watcher


class Heard:
    """What a watcher told."""

    def __init__(self) -> None:
        self.outcomes: list[ImageOutcome] = []
        self.reasons: list[str] = []

    @property
    def names(self) -> list[str]:
        """Of the images that were dealt with."""
        return [one.file.name for one in self.outcomes]

    @property
    def inspections(self) -> list[Inspection]:
        """Of those that were not set aside."""
        return [one.result for one in self.outcomes if isinstance(one.result, Inspection)]

    @property
    def ids(self) -> list[str]:
        """Of the inspections."""
        return [one.inspection_id for one in self.inspections]

    def watcher(self, client: Client, job: WatchJob, **options: Any) -> Watcher:
        return Watcher(client, job, self.outcomes.append, self.reasons.append, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "camera").mkdir()
    return tmp_path / "camera"


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    """A client that leaves it to the watcher to try again."""
    with Client(url, patience=0) as client:
        yield client


def once(client: Client, job: WatchJob, **options: Any) -> tuple[Heard, bool]:
    """Run a watcher until all is done or stuck; it is stopped, and fails, when that takes too long."""
    heard, stop = Heard(), threading.Event()
    limit = threading.Timer(60, stop.set)
    limit.start()
    try:
        complete = heard.watcher(client, job, **options).run(stop, once=True)
    finally:
        limit.cancel()
    assert not stop.is_set(), "it never ends"
    return heard, complete


@contextmanager
def watching(client: Client, job: WatchJob) -> Iterator[Heard]:
    """A watcher that goes on in a thread of its own; it ends with this, whatever fails."""
    heard, stop = Heard(), threading.Event()
    running = threading.Thread(target=heard.watcher(client, job).run, args=(stop,))
    running.start()
    try:
        yield heard
    finally:
        stop.set()
        running.join()


def job(folder: Path, station: str, **options: Any) -> WatchJob:
    """What is to be done, and tried again at once."""
    return WatchJob(folder, "tiny", station, **{"settle": 0.05, "longest_pause": 0.01, **options})


@pytest.fixture
def pictures(folder: Path, tiny_images: dict[str, list[bytes]]) -> list[bytes]:
    """Two pictures in the folder: a.png, and b.png after it."""
    for number, (name, data) in enumerate(zip(("a.png", "b.png"), tiny_images["good"], strict=False)):
        (folder / name).write_bytes(data)
        os.utime(folder / name, ns=(number, number))
    return tiny_images["good"][:2]


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that nothing of tmp_path can be renamed into."""
    shm = Path("/dev/shm")  # noqa: S108
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system at /dev/shm")
    with tempfile.TemporaryDirectory(dir=shm) as folder:
        yield Path(folder)


def shut(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let folders of this name be those of a share that is away."""
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith(name):  # else perhaps a descriptor
            raise OSError(errno.EHOSTDOWN, "Host is down", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
