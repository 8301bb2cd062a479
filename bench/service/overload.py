"""Five times more requests than the service can answer: what it accepts is in time, the rest is refused."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.report import Figures, milliseconds
from bench.service.client import Connection
from bench.service.load import Shot, by_status, closed_loop, open_loop, per_second, shoot
from tests.support.fleet import Fleet
from tests.support.server import Server

_WARM_UP_SECONDS = 3.0
_ALONE = 20  # requests one after the other, to see what an idle service takes


def run(
    fleet: Fleet,
    work: Path,
    *,
    clients: int = 32,
    measure_seconds: float = 15,
    times: float = 5,
    seconds: float = 30,
    timeout_ms: int = 2000,
) -> tuple[Figures, list[str]]:
    """Measure the capacity with some clients, then send so many times as much; figures and failures."""
    query = f"?timeout_ms={timeout_ms}"
    with Server(fleet.models, work) as server:
        alone = asyncio.run(_alone(server.port, fleet))
        asyncio.run(closed_loop(server.port, fleet, clients=clients, seconds=_WARM_UP_SECONDS))
        measured = asyncio.run(closed_loop(server.port, fleet, clients=clients, seconds=measure_seconds))
        rate = times * per_second(measured)
        shots = asyncio.run(open_loop(server.port, fleet, rate=rate, seconds=seconds, query=query))
        time.sleep(max(0.0, max(s.begun for s in shots) + 1 - time.monotonic()))
        recovered = asyncio.run(_alone(server.port, fleet))
    accepted = [shot for shot in shots if shot.status == 200]
    refused = [shot for shot in shots if shot.status == 503]
    failures = faults(shots, timeout_ms / 1000) + [
        f"without overload: {shot.status}" for shot in [*alone, *measured, *recovered] if shot.status != 200
    ]
    if not accepted or not refused:
        failures.append(f"{len(accepted)} accepted and {len(refused)} refused: this was no overload")
    else:
        half, slow = _quantile(accepted, 0.5), _quantile(refused, 0.95)
        if slow > half / 4:
            failures.append(f"refusal p95 {1000 * slow:.0f} ms, accepted p50 {1000 * half:.0f} ms: over 1/4")
    if _quantile(recovered, 0.5) > 2 * _quantile(alone, 0.5):
        failures.append("a second after the overload, requests take more than twice what they took before")
    figures = {
        "capacity_per_second": round(rate / times, 1),
        "offered_per_second": round(rate, 1),
        "seconds": seconds,
        "timeout_ms": timeout_ms,
        "by_status": by_status(shots),
        "accepted_per_second": round(len(accepted) / seconds, 1),
        "accepted_ms": milliseconds([shot.seconds for shot in accepted]),
        "refused_ms": milliseconds([shot.seconds for shot in refused]),
        "alone_before_ms": milliseconds([shot.seconds for shot in alone]),
        "alone_one_second_after_ms": milliseconds([shot.seconds for shot in recovered]),
    }
    return figures, failures


async def _alone(port: int, fleet: Fleet) -> list[Shot]:
    names = fleet.categories
    async with Connection(port) as connection:
        return [
            await shoot(connection, fleet, names[i % len(names)], i, "", time.monotonic())
            for i in range(_ALONE)
        ]


def faults(shots: Sequence[Shot], timeout: float) -> list[str]:
    """Count answers that are neither in time, in seconds, nor a refusal with Retry-After."""
    counts = {
        "lost their connection": sum(shot.answer is None for shot in shots),
        "were answered after their deadline": sum(s.status == 200 and s.seconds > timeout for s in shots),
        "were accepted and not answered in time (504)": sum(shot.status == 504 for shot in shots),
        "were refused without Retry-After": sum(
            shot.status == 503 and shot.answer is not None and "retry-after" not in shot.answer.headers
            for shot in shots
        ),
        "had another status": sum(shot.status not in (0, 200, 503, 504) for shot in shots),
    }
    return [f"{count} of {len(shots)} requests {what}" for what, count in counts.items() if count]


def _quantile(shots: Sequence[Shot], share: float) -> float:
    return float(np.quantile([shot.seconds for shot in shots], share))
