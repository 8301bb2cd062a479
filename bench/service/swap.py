"""Versions are activated and rolled back under load: no answer fails, and each is of an active version."""

import asyncio
import itertools
import math
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.report import Figures, milliseconds
from bench.service.client import Connection
from bench.service.load import Shot, closed_loop, per_second
from tests.support.fleet import Fleet
from tests.support.server import Server

_MIB = 2**20
_TOLERANCE = 1e-4
# Memory may grow by this share after the warm-up, in a run that is long enough to tell.
_MOST_GROWTH = 0.05
_SECONDS_TO_JUDGE = 90
# For how long a run goes on where nothing was activated, or nothing rolled back.
_LONGER_SECONDS = 120


class Timeline:
    """Times at which each version of a category may have been active, beginning with `version`.

    A version may be active from the moment its activation is requested; the one before it, until that is
    answered.
    """

    def __init__(self, version: str) -> None:
        self._spans = [(version, -math.inf, math.inf)]

    @property
    def active(self) -> str:
        """The version that was activated last."""
        return self._spans[-1][0]

    def switch(self, version: str, asked: float, answered: float) -> None:
        """Note that another version is active now."""
        name, begun, _ = self._spans[-1]
        self._spans[-1] = (name, begun, answered)
        self._spans.append((version, asked, math.inf))

    def may_be_active(self, version: str, begun: float, ended: float) -> bool:
        """Whether a version was possibly active at some time of a request."""
        return any(name == version and start <= ended and begun <= end for name, start, end in self._spans)


@dataclass
class _Seen:
    """Changes of versions, with their seconds, and the server's memory after warm-up and at the end."""

    timelines: dict[str, Timeline]
    switches: dict[str, list[float]] = field(default_factory=lambda: {"activate": [], "rollback": []})
    failures: list[str] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)


def run(
    fleet: Fleet,
    work: Path,
    *,
    clients: int = 64,
    seconds: float = 180,
    every: float = 5,
    warm_up: float = 30,
) -> tuple[Figures, list[str]]:
    """Change a version every few seconds while clients send images; figures and failures.

    After a warm-up in seconds the server's memory should be flat.
    """
    warm_up = min(warm_up, seconds / 4)
    fleet = fleet.copy(work / "models")
    scores = fleet.scores()
    seen = _Seen({category: Timeline(versions[0]) for category, versions in fleet.versions.items()})
    with Server(fleet.models, work) as server:
        before = server.metrics()
        shots = asyncio.run(_drive(server, fleet, seen, clients, (warm_up, seconds), every))
        after = server.metrics()
    failures = seen.failures + [found for shot in shots if (found := fault(shot, scores, seen.timelines))]
    begin, end = seen.resident
    if seconds >= _SECONDS_TO_JUDGE and end > (1 + _MOST_GROWTH) * begin:
        failures.append(f"memory grew from {begin / _MIB:.0f} to {end / _MIB:.0f} MiB after the warm-up")
    if not all(seen.switches.values()):
        failures.append("the run was too short: there was no activation, or no rollback")
    batches = after["flowgauge_batch_images_count"] - before["flowgauge_batch_images_count"]
    figures = {
        "clients": clients,
        "seconds": seconds,
        "answers": len(shots),
        "answers_per_second": round(per_second(shots), 1),
        "wrong": len(failures),
        "latency_ms": milliseconds([shot.seconds for shot in shots]),
        "mean_batch": round(len(shots) / batches, 2),
        "changes": {name: len(times) for name, times in seen.switches.items()},
        "change_ms": {name: milliseconds(times) for name, times in seen.switches.items()},
        "memory_mib": {"after_warm_up": round(begin / _MIB), "end": round(end / _MIB)},
    }
    return figures, failures


async def _drive(
    server: Server, fleet: Fleet, seen: _Seen, clients: int, times: tuple[float, float], every: float
) -> list[Shot]:
    warm_up, seconds = times
    switching = asyncio.create_task(_switch(server.port, fleet, seen, every))
    send = partial(closed_loop, server.port, fleet, clients=clients)
    try:
        shots = await send(seconds=warm_up)
        seen.resident.append(server.resident_bytes())
        shots += await send(seconds=seconds - warm_up)
        longest = time.monotonic() + _LONGER_SECONDS
        # On a slow machine an activation alone may take as long.
        while not (all(seen.switches.values()) or switching.done() or time.monotonic() > longest):
            shots += await send(seconds=1)
        seen.resident.append(server.resident_bytes())
        return shots
    finally:
        switching.cancel()
        [end] = await asyncio.gather(switching, return_exceptions=True)
        if isinstance(end, Exception):
            seen.failures.append(repr(end))


async def _switch(port: int, fleet: Fleet, seen: _Seen, every: float) -> None:
    """Activate the next version of a category and roll it back, category by category."""
    async with Connection(port) as connection:
        for category in itertools.cycle(fleet.categories):
            timeline, models = seen.timelines[category], f"/v1/models/{category}"
            before = timeline.active
            after = next(name for name in fleet.versions[category] if name != before)
            changes = (
                ("activate", f"{models}/versions/{after}:activate", after),
                ("rollback", f"{models}:rollback", before),
            )
            for action, path, version in changes:
                await asyncio.sleep(every)
                asked = time.monotonic()
                answer = await connection.request("POST", path)
                answered = time.monotonic()
                if answer.status != 200 or answer.json()["active"] != version:
                    seen.failures.append(f"{action} of {category}: {answer.status} {answer.body[:300]!r}")
                    continue
                timeline.switch(version, asked, answered)
                seen.switches[action].append(answered - asked)


def fault(shot: Shot, scores: dict[tuple[str, str], list[float]], timelines: dict[str, Timeline]) -> str:
    """Describe what is wrong with an answer; empty if nothing is."""
    if shot.answer is None:
        return f"{shot.category}: the connection was lost"
    if shot.status != 200:
        return f"{shot.category}: {shot.status} {shot.answer.body[:300]!r}"
    said = shot.answer.json()
    category, version = said["model"]["category"], said["model"]["version"]
    if category != shot.category:
        return f"{shot.category}: answered as {category}"
    if not timelines[category].may_be_active(version, shot.begun, shot.ended):
        return f"{category}: answered by {version}, which was not active at the time"
    expected = scores[category, version][shot.picture]
    if not math.isclose(said["score"], expected, rel_tol=_TOLERANCE):
        return f"{category}/{version}: picture {shot.picture} scored {said['score']} and not {expected}"
    return ""
