"""Kills under load: every answered inspection is in the history, and no partial file stays."""

import asyncio
import contextlib
import hashlib
import io
import itertools
import json
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx

from app.registry.packing import pack
from bench.report import Figures, milliseconds
from bench.service.client import Connection, DisconnectedError
from flows.fastflow.bundle import bundle, models_folder
from tests.support.fleet import Fleet, unique
from tests.support.server import Server

_RESPONSE_TIMEOUT_SECONDS = 120.0
# From the last awaited answer to the kill, so that kills hit every stage of the work.
_MAX_DELAY_SECONDS = 0.25
_UPLOADED = "uploaded"  # the version that is uploaded and deleted again and again
# 404 and 409: an upload or a deletion just before a kill may or may not have happened.
_EXPECTED = (200, 201, 204, 404, 409)


class _Answered(NamedTuple):
    """An answered inspection: the sha256 of its image, and its score and decision."""

    sha256: str
    score: float
    decision: str


def run(
    fleet: Fleet, work: Path, *, kills: int = 20, clients: int = 16, max_answers: int = 100, seed: int = 0
) -> tuple[Figures, list[str]]:
    """Kill the server under load, again and again; return figures and failures.

    Args:
        fleet: models and images; the server gets a copy.
        work: folder of that copy and of the server's history and log.
        kills: number of kills.
        clients: number of clients.
        max_answers: a kill comes after a random number of answers, at most this one. After a random time
            a slow machine would have done less.
        seed: of these numbers.
    """
    fleet = fleet.copy(work / "models")
    archive = _archive(fleet)
    rng, numbers = random.Random(seed), itertools.count()  # noqa: S311
    answered: dict[str, _Answered] = {}
    failures: list[str] = []
    server = Server(fleet.models, work)
    starts = [server.start()]
    changes = 0
    try:
        for _ in range(kills):
            load = _Load(server, fleet, archive, numbers)
            answers, delay = rng.randint(0, max_answers), rng.uniform(0, _MAX_DELAY_SECONDS)
            new = asyncio.run(load.run_until_killed(clients, answers, delay))
            failures += load.failures
            changes += load.changes
            starts.append(server.start())
            failures += _find_missing(server, new)
            answered |= new
        failures += _find_missing(server, answered)
        server.stop()
    finally:
        server.kill()
    rows, inconsistencies = find_inconsistencies(server.history, answered)
    failures += inconsistencies + _find_broken_models(fleet)
    figures = {
        "kills": kills,
        "clients": clients,
        "answered": len(answered),
        "in_the_history": rows,
        "changes_of_models": changes,
        "start_ms": milliseconds(starts),
        "wrong": len(failures),
    }
    return figures, failures


class _Load:
    """Clients that send images and change versions until the server is killed."""

    def __init__(self, server: Server, fleet: Fleet, archive: bytes, numbers: Iterator[int]) -> None:
        self._server = server
        self._fleet = fleet
        self._archive = archive
        self._numbers = numbers
        self._answered: dict[str, _Answered] = {}
        self._answers = asyncio.Semaphore(0)
        self.failures: list[str] = []
        self.changes = 0

    async def run_until_killed(self, clients: int, answers: int, delay: float) -> dict[str, _Answered]:
        """Kill the server `delay` seconds after so many answers; return the answered inspections."""
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(self._send(number))
            group.create_task(self._change())
            try:
                for _ in range(answers):
                    await asyncio.wait_for(self._answers.acquire(), _RESPONSE_TIMEOUT_SECONDS)
                await asyncio.sleep(delay)
            except TimeoutError:
                self.failures.append(f"no response came within {_RESPONSE_TIMEOUT_SECONDS:g} s")
            finally:
                self._server.kill()  # ends the other tasks
        return self._answered

    async def _send(self, client: int) -> None:
        category = self._fleet.categories[client % len(self._fleet.categories)]
        connection = Connection(self._server.port)
        with contextlib.suppress(DisconnectedError):
            while True:
                number = next(self._numbers)
                image = self._fleet.images[number % len(self._fleet.images)]
                # One in eight is sent more than once, so inspections share its file.
                if number % 8:
                    image = unique(image, number)
                path = f"/v1/models/{category}/predict?part_id=P-{number}"
                response = await connection.request("POST", path, image, {"Content-Type": "image/jpeg"})
                self._answers.release()
                if response.status != 200:
                    self.failures.append(f"an image: {response.status} {response.body[:300]!r}")
                    continue
                body = response.json()
                sha256 = hashlib.sha256(image).hexdigest()
                self._answered[body["inspection_id"]] = _Answered(sha256, body["score"], body["decision"])

    async def _change(self) -> None:
        category = self._fleet.categories[0]
        versions = f"/v1/models/{category}/versions"
        requests = [("POST", f"{versions}/{name}:activate", b"") for name in self._fleet.versions[category]]
        requests.insert(1, ("POST", versions, self._archive))
        requests.append(("DELETE", f"{versions}/{_UPLOADED}", b""))
        connection = Connection(self._server.port)
        with contextlib.suppress(DisconnectedError):
            for method, path, body in itertools.cycle(requests):
                response = await connection.request(method, path, body, {"Content-Type": "application/zip"})
                self.changes += 1
                if response.status not in _EXPECTED:
                    self.failures.append(f"{method} {path}: {response.status} {response.body[:300]!r}")


def _archive(fleet: Fleet) -> bytes:
    """Pack the first version of the first category under another name."""
    category = fleet.categories[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / category / _UPLOADED
        shutil.copytree(fleet.models / category / fleet.versions[category][0], folder)
        manifest = json.loads((folder / bundle.MANIFEST).read_text())
        (folder / bundle.MANIFEST).write_text(json.dumps(manifest | {"version": _UPLOADED}))
        file = io.BytesIO()
        pack(folder, file)
        return file.getvalue()


def _find_missing(server: Server, answered: dict[str, _Answered]) -> list[str]:
    """Find answers that are missing in the history, or differ there."""
    with server.client() as client:
        return [fault for key, one in answered.items() if (fault := _find_fault(client, key, one))]


def _find_fault(client: httpx.Client, identifier: str, answered: _Answered) -> str:
    kept = client.get(f"/v1/inspections/{identifier}")
    if kept.status_code != 200:
        return f"{identifier} was answered but gives {kept.status_code} {kept.text[:200]}"
    body = kept.json()
    if (body["score"], body["decision"]) != (answered.score, answered.decision):
        return f"{identifier} was answered {answered} but kept as {body['score']} {body['decision']}"
    source = client.get(f"/v1/inspections/{identifier}/source")
    if source.status_code != 200 or hashlib.sha256(source.content).hexdigest() != answered.sha256:
        return f"{identifier}: its image is not the one that was sent ({source.status_code})"
    return ""


def find_inconsistencies(history: Path, answered: Collection[str]) -> tuple[int, list[str]]:
    """Count the rows and find files that do not match them, without the service's code.

    Args:
        history: folder of the history.
        answered: ids of answered inspections.
    """
    connection = sqlite3.connect(f"file:{history / 'history.sqlite'}?mode=ro", uri=True)
    with contextlib.closing(connection):
        (integrity,) = connection.execute("PRAGMA integrity_check").fetchone()
        rows = connection.execute("SELECT id, image_sha256 FROM inspections").fetchall()
    images = {path.name: path for path in (history / "pictures").rglob("*") if path.is_file()}
    maps = {path.stem for path in (history / "maps").rglob("*") if path.is_file()}
    ids, digests = {row[0] for row in rows}, {row[1] for row in rows}
    damaged = [n for n, path in images.items() if hashlib.sha256(path.read_bytes()).hexdigest() != n]
    counts = {
        "answers are not in the database": len(set(answered) - ids),
        "rows have no image": len(digests - images.keys()),
        "rows have no map": len(ids - maps),
        "images belong to no row": len(images.keys() - digests),
        "maps belong to no row": len(maps - ids),
        "images do not match the digest in their name": len(damaged),
        "files are partial": sum(path.is_file() for path in (history / "incoming").rglob("*")),
        "files are left in the journal": sum(path.is_file() for path in (history / "journal").rglob("*")),
    }
    faults = [f"{count} {fault}" for fault, count in counts.items() if count]
    if integrity != "ok":
        faults.append(f"the database is damaged: {integrity}")
    return len(rows), faults


def _find_broken_models(fleet: Fleet) -> list[str]:
    """Find versions that do not verify, and categories that lost one."""
    faults = []
    for category in fleet.categories:
        try:
            models_folder.resolve(fleet.models, category)
            for version in models_folder.versions(fleet.models, category):
                bundle.verify(fleet.models / category / version)
        except bundle.BundleError as error:
            faults.append(str(error))
        if lost := set(fleet.versions[category]) - set(models_folder.versions(fleet.models, category)):
            faults.append(f"{category} has lost {', '.join(sorted(lost))}")
    return faults
