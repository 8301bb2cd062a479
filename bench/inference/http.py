"""What the service adds: latency of a picture and CPU time at saturation, over bare decoding and backbone.

The server and two floors are processes of their own that take turns. Pictures are sent with store=false. One
floor is `bench.floor`, on OpenVINO in bfloat16 if the processor has it, whatever the server computes in; the
other one runs the backbone on the server's own engine. Both decode and resize by OpenCV and do nothing else:
one file after the other for latency, eight files to a pass of the backbone for CPU time.
"""

import asyncio
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.inference import engines
from bench.inference.contestant import Contestant, Turn, load_all
from bench.inference.models import CATEGORY, DEFAULT, SIZE, model, photographs
from bench.inference.options import Options
from bench.inference.report import Aim, Part, Ratio, Table, quantiles, ratio
from bench.service.figures import Figures
from bench.service.fleet import Fleet
from bench.service.load import Shot, closed_loop, per_second
from bench.service.server import Server

_LATENCY = Aim(2.0, at_most=True)
_CPU = Aim(1.67, at_most=True)
_CLIENTS = 32
_WARM_UP_SECONDS = 3.0
_QUERY = "?store=false"
_KINDS = {"jpg": "JPEG", "png": "PNG"}
_FULL = "jpg by 8"


class AnswerError(ValueError):
    """The server did not answer as it should."""


@dataclass
class Served:
    """What the server took, round by round.

    Attributes:
        alone: by kind of file, seconds of each answer to one client.
        saturated: answers to many clients.
        cpu: CPU milliseconds of each image meanwhile.
        peak: bytes of memory.
    """

    alone: dict[str, list[list[float]]] = field(default_factory=lambda: {kind: [] for kind in _KINDS})
    saturated: list[list[Shot]] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak: int = 0


def run(options: Options) -> Part:
    """Time all three.

    Raises:
        AnswerError: a request was refused or failed, or another engine answers.
        ContestantError, ServerError: one of them could not be started.
    """
    bundle = model(options.folder)
    files = photographs(options.folder / "pictures")
    fleet = Fleet(bundle.parent.parent, {CATEGORY: (bundle.name,)}, (), SIZE)
    alone = {file.suffix[1:]: replace(fleet, pictures=(file.read_bytes(),)) for file in files}
    same = f"backbone {options.engine}"
    floors: dict[str, Sequence[str]] = {
        "least": [
            sys.executable, "-m", "bench.inference.floor_subject", f"--side={SIZE}",
            f"--threads={options.threads}", *(f"--file={file}" for file in files),
        ],
        same: options.ours("backbone", bundle, options.engine, *files),
    }  # fmt: skip
    served = Served()
    bare: dict[tuple[str, str], list[Turn]] = {}
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flowgauge-bench-")))
        contestants = load_all(stack, floors.items(), options.logs, options.threads)
        settings = engines.server_settings(options.engine, options.threads)
        server = stack.enter_context(Server(fleet.models, work, **settings))
        for one in alone.values():
            expect_engine(send(server, one, 1, _WARM_UP_SECONDS), options.engine)
        for _ in range(options.rounds):
            _round(server, alone, contestants, options.seconds, served, bare)
        served.peak = server.peak_bytes()
    part = Part("http", {"backbone": DEFAULT, "engine": options.engine, **options.figures()})
    part.tables = _tables(served, bare, same)
    least = next(one.about["precision"] for one in contestants if one.name == "least")
    called = {"least": f"the least floor in {least}", same: f"the backbone on {options.engine}"}
    part.ratios = ratios(served, bare, called)
    part.figures = _for_files(served, bare)
    return part


def _round(
    server: Server,
    alone: dict[str, Fleet],
    contestants: Sequence[Contestant],
    seconds: float,
    served: Served,
    bare: dict[tuple[str, str], list[Turn]],
) -> None:
    for kind, one in alone.items():
        served.alone[kind].append([shot.seconds for shot in send(server, one, 1, seconds)])
        for contestant in contestants:
            bare.setdefault((contestant.name, kind), []).append(contestant.turn(kind, seconds))
    cpu = server.cpu_seconds()
    shots = send(server, alone["jpg"], _CLIENTS, 2 * seconds)
    served.cpu.append(1000 * (server.cpu_seconds() - cpu) / len(shots))
    served.saturated.append(shots)
    for contestant in contestants:
        bare.setdefault((contestant.name, _FULL), []).append(contestant.turn(_FULL, 2 * seconds))


def ratios(served: Served, bare: dict[tuple[str, str], list[Turn]], floors: dict[str, str]) -> list[Ratio]:
    """The server over each floor, of which it is the least that counts.

    Args:
        served: what the server took.
        bare: turns by floor and work.
        floors: how each is called.
    """
    found = []
    for floor, called in floors.items():
        aimed = floor == "least"
        found += [
            ratio(
                f"latency of a 900 px {title} over HTTP over {called}",
                [1000 * statistics.median(seconds) for seconds in served.alone[kind]],
                [turn.milliseconds for turn in bare[floor, kind]],
                _LATENCY if aimed else None,
            )
            for kind, title in _KINDS.items()
        ]
        found.append(
            ratio(
                f"CPU time of an image at saturation over {called}",
                served.cpu,
                [turn.cpu_milliseconds for turn in bare[floor, _FULL]],
                _CPU if aimed else None,
            )
        )
    return found


def _tables(served: Served, bare: dict[tuple[str, str], list[Turn]], same: str) -> list[Table]:
    def floor(name: str, kind: str) -> str:
        return quantiles(turn.seconds for turn in bare[name, kind])

    def spent(name: str) -> str:
        return f"{statistics.median(turn.cpu_milliseconds for turn in bare[name, _FULL]):.2f}"

    rows = [
        [f"a 900 px {title}", quantiles(served.alone[kind]), floor("least", kind), floor(same, kind)]
        for kind, title in _KINDS.items()
    ]
    full = [
        f"{statistics.median(map(per_second, served.saturated)):.1f}",
        quantiles([shot.seconds for shot in shots] for shots in served.saturated),
        f"{statistics.median(served.cpu):.2f}",
        spent("least"),
        spent(same),
        f"{served.peak / 2**20:.0f}",
    ]
    header = ["images a second", "p50 / p95 / p99 ms"]
    return [
        Table("One client: p50 / p95 / p99 ms", ["", "over HTTP", "the least floor", same], rows),
        Table(
            f"Saturated by {_CLIENTS} clients that send a 900 px JPEG",
            [*header, "CPU ms an image", "of the least floor", f"of {same}", "peak MiB of the server"],
            [full],
        ),
    ]


def _for_files(served: Served, bare: dict[tuple[str, str], list[Turn]]) -> Figures:
    floors: dict[str, Figures] = {}
    for (name, work), turns in bare.items():
        floors.setdefault(name, {})[work] = [
            {"seconds": list(turn.seconds), "cpu": turn.cpu, "images": turn.images} for turn in turns
        ]
    return {
        "latency_seconds": served.alone,
        "saturated_seconds": [[shot.seconds for shot in shots] for shots in served.saturated],
        "cpu_ms": served.cpu,
        "peak_bytes": served.peak,
        "floors": floors,
    }


def send(server: Server, fleet: Fleet, clients: int, seconds: float) -> list[Shot]:
    """Let clients send pictures, and see that each was inspected.

    Raises:
        AnswerError: one was not.
    """
    shots = asyncio.run(closed_loop(server.port, fleet, clients=clients, seconds=seconds, query=_QUERY))
    return inspected(shots)


def inspected(shots: list[Shot]) -> list[Shot]:
    """The shots, if all were answered with 200 and there is one.

    Raises:
        AnswerError: otherwise.
    """
    if not shots:
        raise AnswerError("nothing was sent: give the turns more seconds")
    wrong = [shot for shot in shots if shot.status != 200]
    if wrong:
        said = wrong[0].answer.body[:300] if wrong[0].answer else b"the connection was lost"
        raise AnswerError(
            f"{len(wrong)} of {len(shots)} requests were not answered with 200; the first: {said!r}"
        )
    return shots


def expect_engine(shots: Sequence[Shot], engine: str) -> None:
    """See that a server computes on the engine that it was asked to compute on.

    Raises:
        AnswerError: it does not.
    """
    for shot in shots:
        said = shot.answer.json()["engine"] if shot.answer else None
        if said != engines.served_name(engine):
            raise AnswerError(f"{engine} was asked for, and the server computes on {said}")
