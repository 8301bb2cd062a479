"""A camera's folder, a watcher of it, and what it tells."""

import threading
from collections.abc import Iterator
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


def ids(heard: Heard) -> list[str]:
    return [one.inspection.inspection_id for one in heard.outcomes if one.inspection is not None]


def job(folder: Path, station: str, **options: object) -> Job:
    return Job(folder, "tiny", station, settle=0.05, **options)  # type: ignore[arg-type]
