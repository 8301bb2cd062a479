"""`kill -9` under load, again and again: every answer is in the history, and nothing half-written stays."""

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
from typing import TypeAlias

import httpx

from app.registry.packing import pack
from bench.report import Figures, milliseconds
from bench.service.client import Connection, DisconnectedError
from flows.fastflow import bundle, models_folder
from tests.support.fleet import Fleet, unique
from tests.support.server import Server

_PATIENCE_SECONDS = 120.0  # without a single answer
_LATER_SECONDS = 0.25  # at most, from the last answer to the kill: it shall hit every stage of the work
_UPLOADED = "uploaded"  # the version that comes and goes while the server is killed
# 404 and 409: what an upload or a deletion just before a kill has done is not known.
_EXPECTED = (200, 201, 204, 404, 409)


# Digest of an image, score and decision of its answer.
_Given: TypeAlias = tuple[str, float, str]


def run(
    fleet: Fleet, work: Path, *, kills: int = 20, clients: int = 16, most: int = 100, seed: int = 0
) -> tuple[Figures, list[str]]:
    """Kill the server while clients send images and versions change; figures and failures.

    A kill comes after a random number of answers, `most` at most: after seconds, a slow machine would have
    worked less.
    """
    fleet = fleet.copy(work / "models")
    archive = _archive(fleet)
    rng, numbers = random.Random(seed), itertools.count()  # noqa: S311
    answered: dict[str, _Given] = {}
    failures: list[str] = []
    server = Server(fleet.models, work)
    starts = [server.start()]
    changes = 0
    try:
        for _ in range(kills):
            load = _Load(server, fleet, archive, numbers)
            answers, later = rng.randint(0, most), rng.uniform(0, _LATER_SECONDS)
            given = asyncio.run(load.until_killed(clients, answers, later))
            failures += load.failures
            changes += load.changes
            starts.append(server.start())
            failures += _missing(server, given)
            answered |= given
        failures += _missing(server, answered)
        server.stop()
    finally:
        server.kill()
    rows, loose = loose_ends(server.history, answered)
    failures += loose + _broken_models(fleet)
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
    """Requests that go on while a server is killed."""

    def __init__(self, server: Server, fleet: Fleet, archive: bytes, numbers: Iterator[int]) -> None:
        self._server = server
        self._fleet = fleet
        self._archive = archive
        self._numbers = numbers
        self._given: dict[str, _Given] = {}
        self._answers = asyncio.Semaphore(0)
        self.failures: list[str] = []
        self.changes = 0

    async def until_killed(self, clients: int, answers: int, later: float) -> dict[str, _Given]:
        """Kill the server `later` seconds after so many answers; returns what it has answered."""
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(self._send(number))
            group.create_task(self._change())
            try:
                for _ in range(answers):
                    await asyncio.wait_for(self._answers.acquire(), _PATIENCE_SECONDS)
                await asyncio.sleep(later)
            except TimeoutError:
                self.failures.append(f"no answer came in {_PATIENCE_SECONDS:g} s")
            finally:
                self._server.kill()  # which ends what goes on
        return self._given

    async def _send(self, client: int) -> None:
        category = self._fleet.categories[client % len(self._fleet.categories)]
        connection = Connection(self._server.port)
        with contextlib.suppress(DisconnectedError):
            while True:
                number = next(self._numbers)
                picture = self._fleet.pictures[number % len(self._fleet.pictures)]
                # Some are sent more than once: they share a file.
                if number % 8:
                    picture = unique(picture, number)
                path = f"/v1/models/{category}/predict?part_id=P-{number}"
                answer = await connection.request("POST", path, picture, {"Content-Type": "image/jpeg"})
                self._answers.release()
                if answer.status != 200:
                    self.failures.append(f"a picture: {answer.status} {answer.body[:300]!r}")
                    continue
                said = answer.json()
                sha256 = hashlib.sha256(picture).hexdigest()
                self._given[said["inspection_id"]] = (sha256, said["score"], said["decision"])

    async def _change(self) -> None:
        category = self._fleet.categories[0]
        versions = f"/v1/models/{category}/versions"
        acts = [("POST", f"{versions}/{name}:activate", b"") for name in self._fleet.versions[category]]
        acts.insert(1, ("POST", versions, self._archive))
        acts.append(("DELETE", f"{versions}/{_UPLOADED}", b""))
        connection = Connection(self._server.port)
        with contextlib.suppress(DisconnectedError):
            for method, path, body in itertools.cycle(acts):
                answer = await connection.request(method, path, body, {"Content-Type": "application/zip"})
                self.changes += 1
                if answer.status not in _EXPECTED:
                    self.failures.append(f"{method} {path}: {answer.status} {answer.body[:300]!r}")


def _archive(fleet: Fleet) -> bytes:
    """A version of the first category to be uploaded: its first one under another name."""
    category = fleet.categories[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / category / _UPLOADED
        shutil.copytree(fleet.models / category / fleet.versions[category][0], folder)
        manifest = json.loads((folder / bundle.MANIFEST).read_text())
        (folder / bundle.MANIFEST).write_text(json.dumps(manifest | {"version": _UPLOADED}))
        file = io.BytesIO()
        pack(folder, file)
        return file.getvalue()


def _missing(server: Server, given: dict[str, _Given]) -> list[str]:
    """Find answers that the history does not have, or has otherwise."""
    with server.client() as client:
        return [fault for identifier, g in given.items() if (fault := _fault(client, identifier, g))]


def _fault(client: httpx.Client, identifier: str, given: _Given) -> str:
    kept = client.get(f"/v1/inspections/{identifier}")
    if kept.status_code != 200:
        return f"{identifier} was answered, and is {kept.status_code} {kept.text[:200]}"
    said = kept.json()
    sha256, *answered = given
    if [said["score"], said["decision"]] != answered:
        return f"{identifier} was answered {given}, and is kept as {said['score']} {said['decision']}"
    source = client.get(f"/v1/inspections/{identifier}/source")
    if source.status_code != 200 or hashlib.sha256(source.content).hexdigest() != sha256:
        return f"{identifier}: its picture is not what was sent ({source.status_code})"
    return ""


def loose_ends(history: Path, answered: Collection[str]) -> tuple[int, list[str]]:
    """Count the rows, and find files that do not fit them, without the service's code."""
    connection = sqlite3.connect(f"file:{history / 'history.sqlite'}?mode=ro", uri=True)
    with contextlib.closing(connection):
        (whole,) = connection.execute("PRAGMA integrity_check").fetchone()
        rows = connection.execute("SELECT id, image_sha256 FROM inspections").fetchall()
    pictures = {path.name: path for path in (history / "pictures").rglob("*") if path.is_file()}
    maps = {path.stem for path in (history / "maps").rglob("*") if path.is_file()}
    ids, digests = {row[0] for row in rows}, {row[1] for row in rows}
    rotten = [n for n, path in pictures.items() if hashlib.sha256(path.read_bytes()).hexdigest() != n]
    counts = {
        "answers are not in the database": len(set(answered) - ids),
        "rows have no picture": len(digests - pictures.keys()),
        "rows have no map": len(ids - maps),
        "pictures belong to no row": len(pictures.keys() - digests),
        "maps belong to no row": len(maps - ids),
        "pictures do not have the bytes that their names say": len(rotten),
        "files are half-written": sum(path.is_file() for path in (history / "incoming").rglob("*")),
        "files are left in the journal": sum(path.is_file() for path in (history / "journal").rglob("*")),
    }
    faults = [f"{count} {what}" for what, count in counts.items() if count]
    if whole != "ok":
        faults.append(f"the database is damaged: {whole}")
    return len(rows), faults


def _broken_models(fleet: Fleet) -> list[str]:
    """Find versions that do not verify, and categories that have lost one."""
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
