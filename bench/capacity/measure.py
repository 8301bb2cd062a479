"""Measurements that the model needs, of a real server and a real database."""

import asyncio
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.history.history import History
from app.history.journal_record import HistoryEntry
from app.settings import Settings
from bench.capacity.plan import Replica
from bench.capacity.queueing import fit
from bench.service.load import Exchange, closed_loop, per_second
from tests.app.history.rows import row
from tests.support.fleet import Fleet
from tests.support.postgres import Postgres, binaries
from tests.support.server import Server

_CLIENTS = (1, 2, 4, 8, 16, 32)
_WARM_UP_SECONDS = 3.0
_IMAGE = b"\xff\xd8" + bytes(20_000)  # of an inspection that is only filed
_MAP_SIZE = (64, 64)


@dataclass(frozen=True)
class Measured:
    """A fitted replica, and what was seen of it.

    Attributes:
        replica: the parameters for the model.
        closed: images a second by the number of clients that wait for their answers.
        batches: mean number of images in a batch by the number of clients.
    """

    replica: Replica
    closed: dict[int, float]
    batches: dict[int, float]


def measure_replica(server: Server, fleet: Fleet, *, seconds: float, max_batch: int) -> Measured:
    """Fit a replica to a server under loads from one client to many.

    Args:
        server: runs on this machine with its default settings.
        fleet: its models, with an inactive version each, and images.
        seconds: of each load.
        max_batch: the server's limit of a batch.
    """
    asyncio.run(closed_loop(server.port, fleet, clients=8, seconds=_WARM_UP_SECONDS))
    seen: list[tuple[int, float]] = []
    closed, sizes = dict[int, float](), dict[int, float]()
    overhead = 0.0
    for clients in _CLIENTS:
        exchanges = asyncio.run(closed_loop(server.port, fleet, clients=clients, seconds=seconds))
        batches = [_batch(exchange) for exchange in exchanges]
        seen += batches
        closed[clients] = per_second(exchanges)
        sizes[clients] = statistics.mean(size for size, _ in batches)
        if clients == 1:
            pairs = zip(exchanges, batches, strict=True)
            overhead = statistics.median(exchange.seconds - infer for exchange, (_, infer) in pairs)
    load_seconds, places = _measure_models(server, fleet, closed[1])
    cores = len(os.sched_getaffinity(0))
    return Measured(Replica(fit(seen, max_batch), overhead, cores, load_seconds, places), closed, sizes)


def measure_filing(servers: Sequence[int], inspections: int) -> dict[int, float]:
    """Measure the inspections a second that numbers of servers file into one PostgreSQL on this machine.

    Raises:
        ValueError: PostgreSQL is not installed.
    """
    if (programs := binaries()) is None:
        raise ValueError("PostgreSQL is not installed; on Debian: apt-get install postgresql")
    found = {}
    with Postgres(programs) as postgres, multiprocessing.get_context("spawn").Pool(max(servers)) as pool:
        for number in servers:
            with postgres.database() as url:
                spans = pool.starmap(_file, [(url, inspections)] * number, chunksize=1)
            begun, ended = (min(begin for begin, _ in spans), max(end for _, end in spans))
            found[number] = number * inspections / (ended - begun)
    return found


def _batch(exchange: Exchange) -> tuple[int, float]:
    """Return the number of images and the seconds of the batch that an answer was in."""
    if exchange.response is None or exchange.status != 200:
        raise ValueError(f"a request failed: {exchange.status}")
    answer = exchange.response.json()
    return answer["batch_size"], answer["timing_ms"]["infer"] / 1000


def _measure_models(server: Server, fleet: Fleet, per_second: float) -> tuple[float, int]:
    """Return the seconds to load a model, and the number of models in the default memory."""
    with server.client() as client:
        seconds = []
        for category in fleet.categories:
            path = f"/v1/models/{category}/versions/{fleet.versions[category][-1]}/predict"
            begun = time.monotonic()
            client.post(
                path, content=fleet.images[0], headers={"Content-Type": "image/jpeg"}
            ).raise_for_status()
            seconds.append(time.monotonic() - begun - 1 / per_second)
    sizes = [size for name, size in server.metrics().items() if name.startswith("flowgauge_model_bytes")]
    return statistics.median(seconds), int(Settings.model_fields["model_bytes"].default / np.mean(sizes))


def _file(url: str, inspections: int) -> tuple[float, float]:
    """File inspections as one server; return the times of begin and end."""
    with tempfile.TemporaryDirectory(prefix="flowgauge-bench-") as folder:
        settings = Settings(history=Path(folder), database=url)
        return asyncio.run(_record(History(settings), inspections))


async def _record(history: History, inspections: int) -> tuple[float, float]:
    await history.open()
    try:
        begun = time.time()  # several processes compare it
        for number in range(inspections):
            image = _IMAGE + number.to_bytes(4)
            await history.record(HistoryEntry(row(image=image), image, np.zeros(_MAP_SIZE, np.float32)))
        await history.wait_until_filed()
        return begun, time.time()
    finally:
        await history.close()
