"""How latency, throughput and memory grow: with categories, with clients, and with the size of pictures."""

import math
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from bench.inference import engines
from bench.inference.categories import COUNT, STEPS, Line, fleet_of, grow
from bench.inference.models import DEFAULT
from bench.inference.options import Options
from bench.inference.report import Part, Table, quantiles
from bench.service.fleet import jpeg, part
from bench.service.load import Shot, per_second
from bench.service.server import Server

K = TypeVar("K")

CLIENTS = (1, 2, 4, 8, 16, 32, 64)
MEGAPIXELS = (0.25, 1, 4, 12, 20)
# Of more clients the service lets no category have more than its share of the queue.
_SPREAD = 8
_CLIENTS = 4


@dataclass(frozen=True)
class Turns:
    """What some turns took.

    Attributes:
        rates: answers a second, turn by turn.
        answers: seconds of each answer, turn by turn.
        cpu: CPU seconds of the server, turn by turn.
    """

    rates: list[float] = field(default_factory=list)
    answers: list[list[float]] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def row(self) -> list[str]:
        """Images a second and CPU time of an image, of the median turn; quantiles of all answers."""
        spent = statistics.median(
            1000 * cpu / len(turn) for cpu, turn in zip(self.cpu, self.answers, strict=True)
        )
        return [f"{statistics.median(self.rates):.1f}", quantiles(self.answers), f"{spent:.2f}"]


@dataclass(frozen=True)
class Load:
    """What is sent at a time: by so many clients, to these categories in turn."""

    line: Line
    names: Sequence[str]
    clients: int

    def send(self, seconds: float) -> list[Shot]:
        """Send it for some seconds."""
        return self.line.send(self.names, self.clients, seconds)


def run(options: Options) -> Part:
    """Measure all three on one server.

    Raises:
        AnswerError: a request was refused or failed.
    """
    fleet, names = fleet_of(options, COUNT)
    pictures = {size: jpeg(part(0, round(math.sqrt(size * 1e6)), defect=True)) for size in MEGAPIXELS}
    with tempfile.TemporaryDirectory(prefix="flowgauge-bench-") as work:
        settings = engines.server_settings(options.engine, options.threads)
        with Server(fleet.models, Path(work), preload=0, **settings) as server:
            line = Line(server, fleet, names)
            resident = grow(line, STEPS, options.engine)
            categories = _in_turns(options, {n: Load(line, names[:n], _CLIENTS) for n in STEPS})
            clients = _in_turns(options, {n: Load(line, names[: min(n, _SPREAD)], n) for n in CLIENTS})
            of_sizes = {
                size: Load(replace(line, fleet=replace(fleet, pictures=(picture,))), names[:1], 1)
                for size, picture in pictures.items()
            }
            sizes = _in_turns(options, of_sizes)
            peak = server.peak_bytes()
    found = Part("growth", {"backbone": DEFAULT, "engine": options.engine, **options.figures()})
    header = ["images a second", "p50 / p95 / p99 ms", "CPU ms an image"]
    found.tables = [
        Table(
            f"Categories, asked in turn by {_CLIENTS} clients",
            ["categories", *header, "resident MiB"],
            [[str(n), *turns.row, f"{resident[n] / 2**20:.0f}"] for n, turns in categories.items()],
        ),
        Table(
            f"Clients, of up to {_SPREAD} categories",
            ["clients", *header],
            [[str(n), *turns.row] for n, turns in clients.items()],
        ),
        Table(
            "Size of a JPEG, 1 client",
            ["megapixels", *header, "MB of the file"],
            [[f"{n:g}", *turns.row, f"{len(pictures[n]) / 1e6:.2f}"] for n, turns in sizes.items()],
        ),
    ]
    found.figures = {
        "resident_bytes": resident,
        "peak_bytes": peak,
        "categories": {n: asdict(turns) for n, turns in categories.items()},
        "clients": {n: asdict(turns) for n, turns in clients.items()},
        "megapixels": {n: asdict(turns) for n, turns in sizes.items()},
    }
    return found


def _in_turns(options: Options, loads: Mapping[K, Load]) -> dict[K, Turns]:
    """Measure each once a round, another one first each time; before that each warms up."""
    for load in loads.values():
        load.send(options.seconds)
    found: dict[K, Turns] = {key: Turns() for key in loads}
    keys = list(loads)
    for number in range(options.rounds):
        first = number % len(keys)
        for key in keys[first:] + keys[:first]:
            before = loads[key].line.server.cpu_seconds()
            shots = loads[key].send(options.seconds)
            found[key].cpu.append(loads[key].line.server.cpu_seconds() - before)
            found[key].rates.append(per_second(shots))
            found[key].answers.append([shot.seconds for shot in shots])
    return found
