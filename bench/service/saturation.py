"""Saturation: images of many categories share batches, and the backbone runs once a batch."""

import asyncio
from pathlib import Path

from bench.report import Figures, milliseconds
from bench.service.load import closed_loop, per_second
from tests.support.fleet import Fleet
from tests.support.server import Server

_WARM_UP_SECONDS = 3.0
_MIN_MEAN_BATCH = 4


def run(fleet: Fleet, work: Path, *, clients: int = 64, seconds: float = 30) -> tuple[Figures, list[str]]:
    """Run the scenario; return its figures and failures."""
    with Server(fleet.models, work) as server:
        asyncio.run(closed_loop(server.port, fleet, clients=clients, seconds=_WARM_UP_SECONDS))
        before = server.metrics()
        exchanges = asyncio.run(closed_loop(server.port, fleet, clients=clients, seconds=seconds))
        after = server.metrics()
    failures = [f"{one.category}: {one.status}" for one in exchanges if one.status != 200]
    change = {name: value - before.get(name, 0.0) for name, value in after.items()}
    batches, images = (change[f"flowgauge_batch_images_{name}"] for name in ("count", "sum"))
    passes = change["flowgauge_backbone_passes_total"]
    mean = images / batches
    if images != len(exchanges):
        failures.append(f"{len(exchanges)} images were sent and {images:.0f} computed")
    if mean <= _MIN_MEAN_BATCH:
        failures.append(f"the mean batch is {mean:.2f}, not over {_MIN_MEAN_BATCH}")
    if passes != batches:
        failures.append(f"{passes:.0f} passes of the backbone for {batches:.0f} batches")
    figures = {
        "clients": clients,
        "images": len(exchanges),
        "images_per_second": round(per_second(exchanges), 1),
        "batches": int(batches),
        "backbone_passes": int(passes),
        "mean_batch": round(mean, 2),
        "mean_categories_in_a_batch": round(change["flowgauge_batch_categories_sum"] / batches, 2),
        "latency_ms": milliseconds([one.seconds for one in exchanges]),
    }
    return figures, failures
