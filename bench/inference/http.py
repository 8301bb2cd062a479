"""The service over decoding and the bare backbone: latency of an image, and CPU time at saturation.

The server and the floor are processes of their own that take turns. Images are sent with store=false. The
floor decodes and resizes by OpenCV, runs the backbone on the server's engine and does nothing else: one file
after the other for latency, eight files in a pass of the backbone for CPU time.
"""

import asyncio
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench.contestants import Contestant, Turn, load_all, quantiles
from bench.inference import engines
from bench.inference.models import CATEGORY, DEFAULT, SIZE, photographs, trained_model
from bench.inference.options import Options
from bench.report import Figures, Ratio, Report, Table, ratio
from bench.service.fleet import Fleet
from bench.service.load import Shot, closed_loop, per_second
from bench.service.server import Server
from bench.turns import in_turns

_CLIENTS = 32
_WARM_UP_SECONDS = 3.0
_KINDS = {"jpg": "JPEG", "png": "PNG"}
_SATURATED = "jpg by 8"


class AnswerError(ValueError):
    """The server did not answer as it should."""


@dataclass(frozen=True)
class Round:
    """One round of the server or of the floor: a turn by its work."""

    turns: Mapping[str, Turn]
    shots: Sequence[Shot] = ()


def run(options: Options) -> Report:
    """Time the server and the floor.

    Raises:
        AnswerError: a request was refused or failed, or another engine answers.
        ContestantError, ServerError: one of them could not be started.
    """
    bundle = trained_model(options.folder)
    files = photographs(options.folder / "images")
    fleet = Fleet(bundle.parent.parent, {CATEGORY: (bundle.name,)}, (), SIZE)
    images = {file.suffix[1:]: replace(fleet, pictures=(file.read_bytes(),)) for file in files}
    floor = f"backbone {options.engine}"
    command = options.our_command("backbone", bundle, options.engine, *files)
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flowgauge-bench-")))
        [contestant] = load_all(stack, [(floor, command)], options.logs, options.threads)
        settings = engines.server_settings(options.engine, options.threads)
        server = stack.enter_context(Server(fleet.models, work, **settings))
        for one in images.values():
            check_engine(send(server, one, 1, _WARM_UP_SECONDS), options.engine)
        ways: dict[str, Callable[[], Round]] = {
            "server": partial(_server_round, server, images, options.seconds),
            floor: partial(_floor_round, contestant, options.seconds),
        }
        rounds = in_turns(ways, options.rounds)
        peak = server.peak_bytes()
    served, bare = rounds["server"], rounds[floor]
    return Report(
        "http",
        {"backbone": DEFAULT, "engine": options.engine, **options.settings()},
        _tables(served, bare, peak),
        ratios(served, bare),
        figures={"server": _figures(served), "floor": _figures(bare), "peak_bytes": peak},
    )


def _server_round(server: Server, images: Mapping[str, Fleet], seconds: float) -> Round:
    turns = {}
    for kind, one in images.items():
        shots = send(server, one, 1, seconds)
        turns[kind] = Turn([shot.seconds for shot in shots], 0.0)
    cpu = server.cpu_seconds()
    shots = send(server, images["jpg"], _CLIENTS, 2 * seconds)
    turns[_SATURATED] = Turn([shot.seconds for shot in shots], server.cpu_seconds() - cpu)
    return Round(turns, shots)


def _floor_round(floor: Contestant, seconds: float) -> Round:
    turns = {kind: floor.turn(kind, seconds) for kind in _KINDS}
    return Round(turns | {_SATURATED: floor.turn(_SATURATED, 2 * seconds)})


def ratios(served: Sequence[Round], bare: Sequence[Round]) -> list[Ratio]:
    """The server over the floor."""
    found = [
        ratio(
            f"latency of a 900 px {title} over HTTP over decoding and backbone",
            *([one.turns[kind].milliseconds for one in rounds] for rounds in (served, bare)),
        )
        for kind, title in _KINDS.items()
    ]
    cpu = ([one.turns[_SATURATED].cpu_milliseconds for one in rounds] for rounds in (served, bare))
    return [*found, ratio("CPU time of an image at saturation over decoding and backbone", *cpu)]


def _tables(served: Sequence[Round], bare: Sequence[Round], peak: int) -> list[Table]:
    def latency(rounds: Sequence[Round], kind: str) -> str:
        return quantiles([one.turns[kind].seconds for one in rounds])

    def cpu(rounds: Sequence[Round]) -> str:
        return f"{statistics.median(one.turns[_SATURATED].cpu_milliseconds for one in rounds):.2f}"

    alone = [
        [f"a 900 px {title}", latency(served, kind), latency(bare, kind)] for kind, title in _KINDS.items()
    ]
    rate = statistics.median(per_second(one.shots) for one in served)
    saturated = [f"{rate:.1f}", latency(served, _SATURATED), cpu(served), cpu(bare), f"{peak / 2**20:.0f}"]
    header = ["images a second", "p50 / p95 / p99 ms", "CPU ms an image", "of the floor", "peak MiB"]
    return [
        Table("One client: p50 / p95 / p99 ms", ["", "over HTTP", "floor"], alone),
        Table(f"Saturated by {_CLIENTS} clients that send a 900 px JPEG", header, [saturated]),
    ]


def _figures(rounds: Sequence[Round]) -> list[Figures]:
    return [
        {work: {"seconds": list(turn.seconds), "cpu": turn.cpu} for work, turn in one.turns.items()}
        for one in rounds
    ]


def send(server: Server, fleet: Fleet, clients: int, seconds: float) -> list[Shot]:
    """Let clients send images, and check that each was inspected.

    Raises:
        AnswerError: an image was not inspected, or none was sent.
    """
    query = "?store=false"
    shots = asyncio.run(closed_loop(server.port, fleet, clients=clients, seconds=seconds, query=query))
    if not shots:
        raise AnswerError("nothing was sent: give the turns more seconds")
    wrong = [shot for shot in shots if shot.status != 200]
    if wrong:
        said = wrong[0].answer.body[:300] if wrong[0].answer else b"the connection was lost"
        raise AnswerError(f"{len(wrong)} of {len(shots)} requests were not answered with 200: {said!r}")
    return shots


def check_engine(shots: Sequence[Shot], engine: str) -> None:
    """Check that the server computes on the engine that it was asked to compute on.

    Raises:
        AnswerError: it does not.
    """
    runtime, numbers = engines.split(engine)
    for shot in shots:
        said = shot.answer.json()["engine"] if shot.answer else None
        if said != f"{runtime}-cpu-{numbers}":
            raise AnswerError(f"{engine} was asked for, and the server computes on {said}")
