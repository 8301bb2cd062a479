"""Two hundred categories on one process: latency over that of one, and memory over their flow files."""

import asyncio
import itertools
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.inference import engines
from bench.inference.copies import copies, flow_bytes
from bench.inference.http import expect_engine, inspected
from bench.inference.models import DEFAULT, PHOTOGRAPH, SIZE, model
from bench.inference.options import Options
from bench.inference.report import Aim, Part, Ratio, Table, quantiles, ratio
from bench.service.client import Connection
from bench.service.fleet import Fleet, jpeg, part
from bench.service.load import Shot, shoot
from bench.service.server import Server
from flows.fastflow.resizing import resize

COUNT = 200
STEPS = (1, 10, 50, 100, 200)
_AT_MOST_TWICE = Aim(2.0, at_most=True)
_CLIENTS = 4
_CROWD = 16
_ROUNDS_OF_ALL = 5
_WARM_UP_SECONDS = 3.0


@dataclass(frozen=True)
class Line:
    """A server of many categories.

    Attributes:
        server: that runs.
        fleet: what it serves; one picture.
        names: of the categories.
    """

    server: Server
    fleet: Fleet
    names: list[str]

    def send(self, names: Sequence[str], clients: int, seconds: float, least: int = 0) -> list[Shot]:
        """Let clients send the picture to categories in turn, for some seconds and so often at least.

        Raises:
            AnswerError: a request was not answered with 200.
        """
        return inspected(asyncio.run(self._send(names, clients, seconds, least)))

    async def _send(self, names: Sequence[str], clients: int, seconds: float, least: int) -> list[Shot]:
        turns = itertools.cycle(names)
        until = time.monotonic() + seconds
        sent = 0
        shots: list[Shot] = []

        async def client() -> None:
            nonlocal sent
            async with Connection(self.server.port) as connection:
                while (begun := time.monotonic()) < until or sent < least:
                    sent += 1
                    shots.append(
                        await shoot(connection.request, self.fleet, next(turns), 0, "?store=false", begun)
                    )

        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client())
        return shots


def fleet_of(options: Options, count: int) -> tuple[Fleet, list[str]]:
    """A models folder of many categories, and their names."""
    models = options.folder / "categories"
    names = copies(model(options.folder), models, count)
    picture = resize(part(0, PHOTOGRAPH, defect=True), (SIZE, SIZE))
    return Fleet(models, {}, (jpeg(picture),), SIZE), names


def grow(line: Line, steps: Sequence[int], engine: str) -> dict[int, int]:
    """Ask one category after the other for the first time; the resident set after so many, in bytes.

    Each time after a crowd that asks for all of them, so that batches are full and each category leads some:
    what computes may keep room for the largest batch.

    Raises:
        AnswerError: a request was refused or failed, or another engine answers.
    """
    expect_engine(line.send(line.names[:1], _CROWD, _WARM_UP_SECONDS), engine)
    resident = {}
    done = 0
    for step in steps:
        fresh = line.names[done:step]
        line.send(fresh, 1, 0, least=len(fresh))
        line.send(line.names[:step], _CROWD, 0, least=_ROUNDS_OF_ALL * step)
        resident[step] = line.server.resident_bytes()
        done = step
    return resident


def run(options: Options) -> Part:
    """Serve them, one at first and then all.

    Raises:
        AnswerError: a request was refused or failed.
    """
    fleet, names = fleet_of(options, COUNT)
    one: list[list[float]] = []
    all_of_them: list[list[float]] = []
    with tempfile.TemporaryDirectory(prefix="flowgauge-bench-") as work:
        # Loaded when they are asked for, to see what each adds.
        settings = engines.server_settings(options.engine, options.threads)
        with Server(fleet.models, Path(work), preload=0, **settings) as server:
            line = Line(server, fleet, names)
            resident = grow(line, STEPS, options.engine)
            for _ in range(options.rounds):
                # As many of both, and every category once at least: or the tails are of other counts.
                shots = line.send(names, _CLIENTS, options.seconds, least=COUNT)
                all_of_them.append([shot.seconds for shot in shots])
                again = line.send(names[:1], _CLIENTS, 0, least=len(shots))
                one.append([shot.seconds for shot in again])
    found = Part("categories", {"backbone": DEFAULT, "engine": options.engine, **options.figures()})
    rows = [
        ["1", quantiles(one), f"{resident[1] / 2**20:.0f}"],
        [str(COUNT), quantiles(all_of_them), f"{resident[COUNT] / 2**20:.0f}"],
    ]
    header = ["categories in turn", "p50 / p95 / p99 ms", "resident MiB"]
    found.tables.append(Table(f"{_CLIENTS} clients that send a {SIZE} px JPEG", header, rows))
    found.ratios = [
        ratio(f"p99 of {COUNT} categories over one's", _p99(all_of_them), _p99(one), _AT_MOST_TWICE),
        memory_ratio(resident, flow_bytes(fleet.models, names[1:])),
    ]
    found.figures = {"one_seconds": one, "all_seconds": all_of_them, "resident_bytes": resident}
    return found


def memory_ratio(resident: dict[int, int], files: int) -> Ratio:
    """Growth of the resident set from the first category to the last, over the flow files of the others."""
    first, last = min(resident), max(resident)
    return ratio(
        f"memory that categories {first + 1} to {last} add over the bytes of their flow files",
        [float(resident[last] - resident[first])],
        [float(files)],
        _AT_MOST_TWICE,
    )


def _p99(turns: Sequence[Sequence[float]]) -> list[float]:
    return [float(np.quantile(seconds, 0.99)) for seconds in turns]
