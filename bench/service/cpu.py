"""What the service adds: CPU seconds per image over HTTP, against a bare loop of decoding and the model.

Both compute on the engine that the server takes by itself: OpenVINO where it is installed.
"""

import asyncio
import time
from pathlib import Path

import numpy as np
import torch

from bench.service.figures import Figures
from bench.service.fleet import Fleet
from bench.service.load import closed_loop
from bench.service.server import Server
from flows.fastflow.detector import Detector
from flows.fastflow.engines import pick_engine
from flows.fastflow.images import decode

_WARM_UP_SECONDS = 3.0


def run(
    fleet: Fleet, work: Path, *, clients: int = 32, rounds: int = 5, seconds: float = 10
) -> tuple[Figures, list[str]]:
    """Run the scenario: the server saturated and the bare loop in turn, so that both see the same machine.

    Measured with one category, where both do the same work, and with all of them, whose heads the server
    runs apart while the bare loop has full batches of one.

    Args:
        fleet: what is served.
        work: an empty folder.
        clients: that send JPEG files with store=false, each one after the other.
        rounds: of each.
        seconds: of a half of a round.

    Returns:
        The figures, and what was wrong.
    """
    category = fleet.categories[0]
    detector = as_served(fleet.models / category / fleet.versions[category][0])
    failures: list[str] = []
    engine = detector.scorer.engine.name
    figures: Figures = {"input_size": fleet.size, "clients": clients, "rounds": rounds, "engine": engine}
    with Server(fleet.models, work) as server:
        for name, asked in (("one_category", [category]), ("all_categories", fleet.categories)):
            _served(server, fleet, clients, _WARM_UP_SECONDS, asked)
            served, batches, bare, ratios = [], [], [], []
            for _ in range(rounds):
                spent, batch, faults = _served(server, fleet, clients, seconds, asked)
                served.append(spent)
                batches.append(batch)
                failures += faults
                bare.append(_bare(detector, fleet, round(batch), seconds))
                ratios.append(spent / bare[-1])
            figures[name] = {
                "categories": len(asked),
                "mean_batch": round(float(np.median(batches)), 2),
                "served_cpu_ms_per_image": round(1000 * float(np.median(served)), 2),
                "bare_cpu_ms_per_image": round(1000 * float(np.median(bare)), 2),
                "ratio": round(float(np.median(ratios)), 3),
                "ratios": [round(ratio, 3) for ratio in ratios],
            }
    return figures, failures


def as_served(bundle: Path) -> Detector:
    """A model on the engine that the server takes, as ready as it is there."""
    cpu = torch.device("cpu")
    detector = Detector.load(bundle, device="cpu", engine=pick_engine("float32", cpu, "auto"))
    detector.scorer.warm_up()
    detector.scorer.specialise()
    return detector


def _served(
    server: Server, fleet: Fleet, clients: int, seconds: float, categories: list[str]
) -> tuple[float, float, list[str]]:
    """CPU seconds of the server per image, the mean batch, and what was wrong."""
    before, cpu = server.metrics(), server.cpu_seconds()
    shots = asyncio.run(
        closed_loop(
            server.port, fleet, clients=clients, seconds=seconds, query="?store=false", categories=categories
        )
    )
    cpu, after = server.cpu_seconds() - cpu, server.metrics()
    images, batches = (
        after[name] - before[name] for name in ("flowgauge_batch_images_sum", "flowgauge_batch_images_count")
    )
    faults = [f"{shot.category}: {shot.status}" for shot in shots if shot.status != 200]
    return cpu / len(shots), images / batches, faults


def _bare(detector: Detector, fleet: Fleet, batch: int, seconds: float) -> float:
    """CPU seconds per image of nothing but decoding and the model, in batches."""
    _bare_batch(detector, fleet, batch, 0)
    begun, cpu, images = time.monotonic(), time.process_time(), 0
    while time.monotonic() - begun < seconds:
        _bare_batch(detector, fleet, batch, images)
        images += batch
    return (time.process_time() - cpu) / images


def _bare_batch(detector: Detector, fleet: Fleet, batch: int, first: int) -> None:
    pictures = [fleet.pictures[(first + i) % len(fleet.pictures)] for i in range(batch)]
    detector.predict([decode(picture) for picture in pictures])
