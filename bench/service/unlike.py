"""A category of a slow model has always pictures waiting, while another one inspects on."""

import asyncio
import shutil
from functools import partial
from pathlib import Path

from bench.service import fleet as fleets
from bench.service import overload
from bench.service.figures import Figures, milliseconds
from bench.service.fleet import Fleet
from bench.service.load import Shot, closed_loop, per_second
from bench.service.server import Server

_WARM_UP_SECONDS = 5.0
_CAMERAS = 8  # of the quick category
_SLOW = "slow"


def run(
    fleet: Fleet,
    work: Path,
    *,
    clients: int = 16,
    seconds: float = 30,
    every: float = 0.2,
    timeout_ms: int = 10_000,
) -> tuple[Figures, list[str]]:
    """Run the scenario: by itself the quick category, then beside the slow one, whose pictures are longer.

    Args:
        fleet: what is served; its first category is the quick one.
        work: an empty folder.
        clients: of the slow one, each one request after the other.
        seconds: for how long, each.
        every: seconds from an answer to the next request of a camera of the quick one.
        timeout_ms: deadline of every request.

    Returns:
        The figures, and what was wrong.
    """
    slow = fleets.make(
        fleet.models.parent / "slow", size=2 * fleet.size + 128, categories=1, versions=1, name=_SLOW
    )
    both = fleet.copy(work / "models")
    shutil.copytree(slow.models, both.models, dirs_exist_ok=True)
    query = f"?store=false&timeout_ms={timeout_ms}"
    with Server(both.models, work) as server:
        asyncio.run(_drive(server.port, fleet, slow, clients, _WARM_UP_SECONDS, every, query))
        alone, _ = asyncio.run(_drive(server.port, fleet, slow, 0, seconds, every, query))
        quick, flood = asyncio.run(_drive(server.port, fleet, slow, clients, seconds, every, query))
    figures = {
        "clients": clients,
        "input_size": {"quick": fleet.size, "slow": slow.size},
        "seconds": seconds,
        "timeout_ms": timeout_ms,
        **{
            name: {"per_second": round(per_second(shots), 1), "ms": milliseconds([s.seconds for s in shots])}
            for name, shots in (("quick alone", alone), ("quick beside", quick), ("slow", flood))
        },
    }
    return figures, wrong(alone, quick, flood, timeout_ms / 1000)


def wrong(alone: list[Shot], quick: list[Shot], flood: list[Shot], timeout: float) -> list[str]:
    """What was not as promised: a refusal of the quick category, and all that is wrong anyway.

    Args:
        alone: requests of the quick category by itself.
        quick: those beside the slow one.
        flood: those of the slow one.
        timeout: seconds that every request had.
    """
    failures = overload.wrong([*alone, *quick, *flood], timeout)
    refused = sum(shot.status == 503 for shot in [*alone, *quick])
    if refused:
        failures.append(f"{refused} of {len(alone) + len(quick)} requests of the quick category were refused")
    return failures


async def _drive(
    port: int, quick: Fleet, slow: Fleet, clients: int, seconds: float, every: float, query: str
) -> tuple[list[Shot], list[Shot]]:
    send = partial(closed_loop, port, seconds=seconds, query=query)
    return await asyncio.gather(
        send(quick, clients=_CAMERAS, categories=quick.categories[:1], every=every),
        send(slow, clients=clients, every=0),
    )
