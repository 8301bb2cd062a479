"""Fairness: a category that sends little is answered while another floods the service."""

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench.report import Figures, milliseconds
from bench.service import overload
from bench.service.load import Exchange, by_status, closed_loop
from tests.support.fleet import Fleet
from tests.support.server import Server

_WARM_UP_SECONDS = 3.0


def run(
    fleet: Fleet,
    work: Path,
    *,
    clients: int = 200,
    seconds: float = 30,
    every: float = 0.2,
    timeout_ms: int = 2000,
) -> tuple[Figures, list[str]]:
    """Flood one category while one client sends to another; return figures and failures.

    Args:
        fleet: models and images.
        work: folder of the server's history and log.
        clients: of the flood; each obeys Retry-After.
        seconds: of load.
        every: seconds between the requests of the other client.
        timeout_ms: deadline of every request.
    """

    async def drive(port: int) -> tuple[list[Exchange], list[Exchange]]:
        send = partial(closed_loop, port, fleet, seconds=seconds, query=f"?timeout_ms={timeout_ms}")
        big, small = ([category] for category in fleet.categories[:2])
        return await asyncio.gather(
            send(clients=clients, categories=big, every=0), send(clients=1, categories=small, every=every)
        )

    with Server(fleet.models, work) as server:
        asyncio.run(closed_loop(server.port, fleet, clients=8, seconds=_WARM_UP_SECONDS))
        flood, few = asyncio.run(drive(server.port))
    figures: Figures = {"clients": clients, "seconds": seconds, "timeout_ms": timeout_ms}
    for name, exchanges in (("flood", flood), ("few", few)):
        figures[f"{name}_by_status"] = by_status(exchanges)
        figures[f"{name}_accepted_ms"] = milliseconds([one.seconds for one in exchanges if one.status == 200])
    return figures, find_faults(flood, few, timeout_ms / 1000)


def find_faults(flood: Sequence[Exchange], few: Sequence[Exchange], timeout: float) -> list[str]:
    """Find refusals of the small category, and the faults of any overload."""
    failures = overload.find_faults([*flood, *few], timeout)
    refused = sum(one.status == 503 for one in few)
    if refused:
        failures.append(f"{refused} of {len(few)} requests of the category that sends little were refused")
    if not any(one.status == 503 for one in flood):
        failures.append("nothing of the flood was refused: this was no overload")
    return failures
