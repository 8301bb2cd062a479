"""A camera's folder, a watcher of it, and what it tells."""

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.client import Client, ProblemDetails
from app.client.watch import watcher as module
from app.client.watch.job import Job
from app.client.watch.outcome import Outcome
from app.client.watch.watcher import Watcher

Refuses = Callable[[httpx.Request], bool]


class Heard:
    """What a watcher told."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.reasons: list[str] = []
        self.warnings: list[str] = []

    def dealt_with(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def waits(self, reason: str) -> None:
        self.reasons.append(reason)

    def warns(self, reason: str) -> None:
        self.warnings.append(reason)


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


def ids(heard: Heard) -> list[str]:
    return [one.inspection.inspection_id for one in heard.outcomes if one.inspection is not None]


def job(folder: Path, station: str, **options: object) -> Job:
    return Job(folder, "tiny", station, settle=0.05, **options)  # type: ignore[arg-type]


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it try again at once."""
    monkeypatch.setattr(module, "_LONGEST_SECONDS", 0.01)


class Proxy(httpx.BaseTransport):
    """Answers some requests itself, as proxies do: with a page of its own, or by hanging up (None)."""

    def __init__(self, status: int | None, refuses: Refuses) -> None:
        self._through = httpx.HTTPTransport()
        self._status = status
        self._refuses = refuses
        self.refused = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self._refuses(request):
            self.refused += 1
            if self._status is None:
                raise httpx.WriteError("[Errno 104] Connection reset by peer", request=request)
            return httpx.Response(self._status, text="<html>nginx</html>")
        return self._through.handle_request(request)

    def close(self) -> None:
        self._through.close()


@contextmanager
def behind(url: str, status: int | None, refuses: Refuses) -> Iterator[tuple[Client, Proxy]]:
    """A client that comes to a server through a proxy."""
    proxy = Proxy(status, refuses)
    with Client(url, patience=0) as client:
        client._http.close()
        client._http = httpx.Client(base_url=url, transport=proxy, timeout=60)
        yield client, proxy


@pytest.fixture
def pictures(folder: Path, tiny_images: dict[str, list[bytes]]) -> list[bytes]:
    """Two pictures in the folder: a.png, and b.png after it."""
    for name, data in zip(("a.png", "b.png"), tiny_images["good"], strict=False):
        (folder / name).write_bytes(data)
        time.sleep(0.01)
    return tiny_images["good"][:2]


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that nothing of tmp_path can be renamed into."""
    shm = Path("/dev/shm")  # noqa: S108
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system at /dev/shm")
    with tempfile.TemporaryDirectory(dir=shm) as folder:
        yield Path(folder)


def problem(name: str) -> ProblemDetails:
    return ProblemDetails(type=name, title="t", status=500, detail="d", instance="/", request_id="r")


def shut(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """Let folders of this name be unreadable. Root may read everything, and the service here must too."""
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith(name):  # else perhaps a descriptor
            raise OSError(number, os.strerror(number), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


def once_in_time(client: Client, job: Job) -> tuple[Heard, bool]:
    """As `once`, of a watcher that may not end by itself."""
    heard, stop = Heard(), threading.Event()
    limit = threading.Timer(60, stop.set)
    limit.start()
    try:
        complete = Watcher(client, job, heard).run(stop, once=True)
    finally:
        limit.cancel()
    assert not stop.is_set(), "it never ends"
    return heard, complete


@contextmanager
def full(monkeypatch: pytest.MonkeyPatch, folder: Path, number: int) -> Iterator[list[Path]]:
    """Let nothing be written into a folder, as where its disk is full; gives what was tried."""
    tried: list[Path] = []
    write = Path.write_bytes

    def refuse(path: Path, content: bytes) -> int:
        if path.is_relative_to(folder):
            tried.append(path)
            raise OSError(number, os.strerror(number), str(path))
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", refuse)
        yield tried
