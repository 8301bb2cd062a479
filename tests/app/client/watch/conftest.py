"""A camera's folder, a watcher of it, and what it tells."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.client import Client
from app.client.watch.job import Job
from app.client.watch.outcome import Outcome
from app.client.watch.watcher import Watcher


class Heard:
    """What a watcher told."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.reasons: list[str] = []

    def dealt_with(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def waits(self, reason: str) -> None:
        self.reasons.append(reason)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "camera").mkdir()
    return tmp_path / "camera"


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, patience=5) as client:
        yield client


def once(client: Client, job: Job) -> tuple[Heard, bool]:
    heard = Heard()
    watcher = Watcher(client, job, heard)
    complete = watcher.run(threading.Event(), once=True)
    assert watcher.tally.inspected + watcher.tally.set_aside == len(heard.outcomes)
    return heard, complete


@contextmanager
def watching(client: Client, job: Job) -> Iterator[Heard]:
    """A watcher that goes on in a thread of its own; it ends with this, whatever fails."""
    heard, stop = Heard(), threading.Event()
    running = threading.Thread(target=Watcher(client, job, heard).run, args=(stop,))
    running.start()
    try:
        yield heard
    finally:
        stop.set()
        running.join()


def wait_until(comes: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not comes():
        assert time.monotonic() < deadline, "it never comes"
        time.sleep(0.01)


def ids(heard: Heard) -> list[str]:
    return [one.inspection.inspection_id for one in heard.outcomes if one.inspection is not None]


def job(folder: Path, station: str, **options: object) -> Job:
    return Job(folder, "tiny", station, settle=0.05, **options)  # type: ignore[arg-type]
