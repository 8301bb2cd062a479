"""Swaps of versions under load: no request fails, and an active version answers each."""

import asyncio
import itertools
import math
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.report import Figures, milliseconds
from bench.service.client import Connection
from bench.service.load import Exchange, closed_loop, per_second
from tests.support.fleet import Fleet
from tests.support.server import Server

_MIB = 2**20
_TOLERANCE = 1e-4
# Memory may grow by this share after the warm-up; shorter runs than the second constant do not check it.
_MAX_GROWTH = 0.05
_MIN_SECONDS_FOR_GROWTH = 90
# A run goes on for so long until there were an activation and a rollback.
_MAX_EXTRA_SECONDS = 120


class Timeline:
    """Spans of time in which each version of a category may have been active.

    A new version may be active from the request of its activation on, the one before it until the response.

    Args:
        version: active at first.
    """

    def __init__(self, version: str) -> None:
        self._spans = [(version, -math.inf, math.inf)]

    @property
    def active(self) -> str:
        """Version that was activated last."""
        return self._spans[-1][0]

    def switch(self, version: str, requested: float, answered: float) -> None:
        """Record the activation of another version."""
        name, begun, _ = self._spans[-1]
        self._spans[-1] = (name, begun, answered)
        self._spans.append((version, requested, math.inf))

    def may_be_active(self, version: str, begun: float, ended: float) -> bool:
        """Return whether a version may have been active at some time of a request."""
        return any(name == version and start <= ended and begun <= end for name, start, end in self._spans)


@dataclass
class _Observations:
    """Observations of a run.

    Attributes:
        timelines: by category.
        switches: seconds of each activation and rollback.
        failures: of activations and rollbacks.
        resident: bytes of the server after the warm-up and at the end.
    """

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
    """Change a version every few seconds while clients send images; return figures and failures.

    Args:
        fleet: models and images; the server gets a copy.
        work: folder of that copy and of the server's history and log.
        clients: number of clients.
        seconds: of load.
        every: seconds between changes.
        warm_up: seconds after which the server's memory should be constant.
    """
    warm_up = min(warm_up, seconds / 4)
    fleet = fleet.copy(work / "models")
    scores = fleet.scores()
    observed = _Observations(
        {category: Timeline(versions[0]) for category, versions in fleet.versions.items()}
    )
    with Server(fleet.models, work) as server:
        before = server.metrics()
        exchanges = asyncio.run(_drive(server, fleet, observed, clients, (warm_up, seconds), every))
        after = server.metrics()
    failures = observed.failures + [
        found for one in exchanges if (found := find_fault(one, scores, observed.timelines))
    ]
    begin, end = observed.resident
    if seconds >= _MIN_SECONDS_FOR_GROWTH and end > (1 + _MAX_GROWTH) * begin:
        failures.append(f"memory grew from {begin / _MIB:.0f} to {end / _MIB:.0f} MiB after the warm-up")
    if not all(observed.switches.values()):
        failures.append("the run was too short: there was no activation, or no rollback")
    batches = after["flowgauge_batch_images_count"] - before["flowgauge_batch_images_count"]
    figures = {
        "clients": clients,
        "seconds": seconds,
        "answers": len(exchanges),
        "answers_per_second": round(per_second(exchanges), 1),
        "wrong": len(failures),
        "latency_ms": milliseconds([one.seconds for one in exchanges]),
        "mean_batch": round(len(exchanges) / batches, 2),
        "changes": {name: len(times) for name, times in observed.switches.items()},
        "change_ms": {name: milliseconds(times) for name, times in observed.switches.items()},
        "memory_mib": {"after_warm_up": round(begin / _MIB), "end": round(end / _MIB)},
    }
    return figures, failures


async def _drive(
    server: Server,
    fleet: Fleet,
    observed: _Observations,
    clients: int,
    times: tuple[float, float],
    every: float,
) -> list[Exchange]:
    warm_up, seconds = times
    switching = asyncio.create_task(_switch(server.port, fleet, observed, every))
    send = partial(closed_loop, server.port, fleet, clients=clients)
    try:
        exchanges = await send(seconds=warm_up)
        observed.resident.append(server.resident_bytes())
        exchanges += await send(seconds=seconds - warm_up)
        deadline = time.monotonic() + _MAX_EXTRA_SECONDS
        # On a slow machine an activation alone can take that long.
        while not (all(observed.switches.values()) or switching.done() or time.monotonic() > deadline):
            exchanges += await send(seconds=1)
        observed.resident.append(server.resident_bytes())
        return exchanges
    finally:
        switching.cancel()
        [end] = await asyncio.gather(switching, return_exceptions=True)
        if isinstance(end, Exception):
            observed.failures.append(repr(end))


async def _switch(port: int, fleet: Fleet, observed: _Observations, every: float) -> None:
    """Activate and roll back the next version, category by category, until cancelled."""
    async with Connection(port) as connection:
        for category in itertools.cycle(fleet.categories):
            timeline, models = observed.timelines[category], f"/v1/models/{category}"
            before = timeline.active
            after = next(name for name in fleet.versions[category] if name != before)
            changes = (
                ("activate", f"{models}/versions/{after}:activate", after),
                ("rollback", f"{models}:rollback", before),
            )
            for action, path, version in changes:
                await asyncio.sleep(every)
                requested = time.monotonic()
                response = await connection.request("POST", path)
                answered = time.monotonic()
                if response.status != 200 or response.json()["active"] != version:
                    observed.failures.append(
                        f"{action} of {category}: {response.status} {response.body[:300]!r}"
                    )
                    continue
                timeline.switch(version, requested, answered)
                observed.switches[action].append(answered - requested)


def find_fault(
    exchange: Exchange, scores: dict[tuple[str, str], list[float]], timelines: dict[str, Timeline]
) -> str:
    """Describe the fault of a response; empty without one.

    Args:
        exchange: with the response.
        scores: of every image, by category and version.
        timelines: by category.
    """
    if exchange.response is None:
        return f"{exchange.category}: the connection was lost"
    if exchange.status != 200:
        return f"{exchange.category}: {exchange.status} {exchange.response.body[:300]!r}"
    body = exchange.response.json()
    category, version = body["model"]["category"], body["model"]["version"]
    if category != exchange.category:
        return f"{exchange.category}: answered as {category}"
    if not timelines[category].may_be_active(version, exchange.begun, exchange.ended):
        return f"{category}: answered by {version}, which was not active at the time"
    expected = scores[category, version][exchange.image]
    if not math.isclose(body["score"], expected, rel_tol=_TOLERANCE):
        return f"{category}/{version}: image {exchange.image} scored {body['score']} instead of {expected}"
    return ""
