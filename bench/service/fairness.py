"""One category floods the service while another sends a picture now and then, and is answered every time."""

import asyncio
from functools import partial
from pathlib import Path

from bench.service import overload
from bench.service.figures import Figures, milliseconds
from bench.service.fleet import Fleet
from bench.service.load import Shot, closed_loop
from bench.service.server import Server

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
    """Run the scenario.

    Args:
        fleet: what is served, two categories or more: the first one floods, the second one sends little.
        work: an empty folder.
        clients: of the one that floods, each one request after the other; refused, it waits as it is told.
        seconds: for how long.
        every: seconds from one request of the other category to the next.
        timeout_ms: deadline of every request.

    Returns:
        The figures, and what was wrong.
    """
    big, small = fleet.categories[:2]
    query = f"?timeout_ms={timeout_ms}"
    with Server(fleet.models, work) as server:
        asyncio.run(closed_loop(server.port, fleet, clients=8, seconds=_WARM_UP_SECONDS))
        flood, few = asyncio.run(_drive(server.port, fleet, (big, small), clients, seconds, every, query))
    figures = {
        "clients": clients,
        "input_size": fleet.size,
        "seconds": seconds,
        "timeout_ms": timeout_ms,
        **{
            name: {
                "by_status": {
                    str(status): sum(shot.status == status for shot in shots)
                    for status in sorted({shot.status for shot in shots})
                },
                "accepted_ms": milliseconds([shot.seconds for shot in shots if shot.status == 200]),
            }
            for name, shots in (("flood", flood), ("few", few))
        },
    }
    return figures, wrong(flood, few, timeout_ms / 1000)


def wrong(flood: list[Shot], few: list[Shot], timeout: float) -> list[str]:
    """What was not as promised: a refusal of the category that sends little, and all that is wrong anyway.

    Args:
        flood: requests of the category that floods.
        few: those of the other one.
        timeout: seconds that every request had.
    """
    failures = overload.wrong([*flood, *few], timeout)
    refused = sum(shot.status == 503 for shot in few)
    if refused:
        failures.append(f"{refused} of {len(few)} requests of the category that sends little were refused")
    if not any(shot.status == 503 for shot in flood):
        failures.append("nothing of the flood was refused: this was no overload")
    return failures


async def _drive(
    port: int,
    fleet: Fleet,
    categories: tuple[str, str],
    clients: int,
    seconds: float,
    every: float,
    query: str,
) -> tuple[list[Shot], list[Shot]]:
    flood, few = ([category] for category in categories)
    send = partial(closed_loop, port, fleet, seconds=seconds, query=query)
    return await asyncio.gather(
        send(clients=clients, categories=flood, every=0), send(clients=1, categories=few, every=every)
    )
