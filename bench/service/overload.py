"""Overload: accepted requests are answered in time, and the others are refused at once."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.report import Figures, milliseconds
from bench.service.client import Connection
from bench.service.load import Exchange, by_status, closed_loop, open_loop, per_second, send_image
from tests.support.fleet import Fleet
from tests.support.server import Server

_WARM_UP_SECONDS = 3.0
_IDLE_REQUESTS = 20  # one after the other, to time an idle service


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
    """Measure the capacity, then send a multiple of it; return figures and failures.

    Args:
        fleet: models and images.
        work: folder of the server's history and log.
        clients: that measure the capacity.
        measure_seconds: for which they do.
        times: multiple of the capacity that is sent.
        seconds: of overload.
        timeout_ms: deadline of its requests.
    """
    query = f"?timeout_ms={timeout_ms}"
    with Server(fleet.models, work) as server:
        before = asyncio.run(_send_one_by_one(server.port, fleet))
        asyncio.run(closed_loop(server.port, fleet, clients=clients, seconds=_WARM_UP_SECONDS))
        measured = asyncio.run(closed_loop(server.port, fleet, clients=clients, seconds=measure_seconds))
        rate = times * per_second(measured)
        exchanges = asyncio.run(open_loop(server.port, fleet, rate=rate, seconds=seconds, query=query))
        time.sleep(max(0.0, max(one.begun for one in exchanges) + 1 - time.monotonic()))
        recovered = asyncio.run(_send_one_by_one(server.port, fleet))
    accepted = [one for one in exchanges if one.status == 200]
    refused = [one for one in exchanges if one.status == 503]
    failures = find_faults(exchanges, timeout_ms / 1000) + [
        f"without overload: {one.status}" for one in [*before, *measured, *recovered] if one.status != 200
    ]
    if not accepted or not refused:
        failures.append(f"{len(accepted)} accepted and {len(refused)} refused: this was no overload")
    else:
        half, slow = _quantile(accepted, 0.5), _quantile(refused, 0.95)
        if slow > half / 4:
            failures.append(f"refusal p95 {1000 * slow:.0f} ms, accepted p50 {1000 * half:.0f} ms: over 1/4")
    if _quantile(recovered, 0.5) > 2 * _quantile(before, 0.5):
        failures.append("a second after the overload requests take more than twice as long as before")
    figures = {
        "capacity_per_second": round(rate / times, 1),
        "offered_per_second": round(rate, 1),
        "seconds": seconds,
        "timeout_ms": timeout_ms,
        "by_status": by_status(exchanges),
        "accepted_per_second": round(len(accepted) / seconds, 1),
        "accepted_ms": milliseconds([one.seconds for one in accepted]),
        "refused_ms": milliseconds([one.seconds for one in refused]),
        "alone_before_ms": milliseconds([one.seconds for one in before]),
        "alone_one_second_after_ms": milliseconds([one.seconds for one in recovered]),
    }
    return figures, failures


async def _send_one_by_one(port: int, fleet: Fleet) -> list[Exchange]:
    names = fleet.categories
    async with Connection(port) as connection:
        return [
            await send_image(connection, fleet, names[i % len(names)], i, "", time.monotonic())
            for i in range(_IDLE_REQUESTS)
        ]


def find_faults(exchanges: Sequence[Exchange], timeout: float) -> list[str]:
    """Count responses that are neither within `timeout` seconds nor a refusal with Retry-After."""
    late = [one for one in exchanges if one.status == 200 and one.seconds > timeout]
    counts = {
        "lost their connection": sum(one.response is None for one in exchanges),
        "were answered after their deadline": len(late),
        "were accepted and not answered in time (504)": sum(one.status == 504 for one in exchanges),
        "were refused without Retry-After": sum(
            one.status == 503 and one.response is not None and "retry-after" not in one.response.headers
            for one in exchanges
        ),
        "had another status": sum(one.status not in (0, 200, 503, 504) for one in exchanges),
    }
    return [f"{count} of {len(exchanges)} requests {fault}" for fault, count in counts.items() if count]


def _quantile(exchanges: Sequence[Exchange], share: float) -> float:
    return float(np.quantile([one.seconds for one in exchanges], share))
