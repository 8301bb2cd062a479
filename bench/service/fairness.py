"""One category floods the service while another sends an image now and then, and is answered every time."""

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench.report import Figures, milliseconds
from bench.service import overload
from bench.service.load import Shot, by_status, closed_loop
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
    """Flood one category, and send to another one every few moments; figures and failures.

    Clients of the flood send one request after the other; refused, they wait as they are told.
    """

    async def drive(port: int) -> tuple[list[Shot], list[Shot]]:
        send = partial(closed_loop, port, fleet, seconds=seconds, query=f"?timeout_ms={timeout_ms}")
        big, small = ([category] for category in fleet.categories[:2])
        return await asyncio.gather(
            send(clients=clients, categories=big, every=0), send(clients=1, categories=small, every=every)
        )

    with Server(fleet.models, work) as server:
        asyncio.run(closed_loop(server.port, fleet, clients=8, seconds=_WARM_UP_SECONDS))
        flood, few = asyncio.run(drive(server.port))
    figures: Figures = {"clients": clients, "seconds": seconds, "timeout_ms": timeout_ms}
    for name, shots in (("flood", flood), ("few", few)):
        figures[f"{name}_by_status"] = by_status(shots)
        figures[f"{name}_accepted_ms"] = milliseconds([s.seconds for s in shots if s.status == 200])
    return figures, faults(flood, few, timeout_ms / 1000)


def faults(flood: Sequence[Shot], few: Sequence[Shot], timeout: float) -> list[str]:
    """Find refusals of the category that sends little, and whatever is wrong in any overload."""
    failures = overload.faults([*flood, *few], timeout)
    refused = sum(shot.status == 503 for shot in few)
    if refused:
        failures.append(f"{refused} of {len(few)} requests of the category that sends little were refused")
    if not any(shot.status == 503 for shot in flood):
        failures.append("nothing of the flood was refused: this was no overload")
    return failures
