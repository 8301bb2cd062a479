"""The service over decoding and the bare backbone: latency of an image, and CPU time at saturation.

The server and the floor are processes of their own that take turns. Images are sent with store=false. The
floor decodes and resizes by OpenCV, runs the backbone on the server's engine and does nothing else: one file
after the other for latency, eight files in a pass of the backbone for CPU time.
"""

import asyncio
import statistics
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench.contestants import Results, Turn, load_all, quantiles
from bench.inference import engines
from bench.inference.models import CATEGORY, DEFAULT, SIZE, photographs, trained_model
from bench.inference.options import Options
from bench.report import Ratio, Report, Table, ratio
from bench.service.load import Shot, closed_loop, per_second
from bench.turns import in_turns
from tests.support.fleet import Fleet
from tests.support.server import Server

_CLIENTS = 32
_WARM_UP_SECONDS = 3.0
_KINDS = {"jpg": "JPEG", "png": "PNG"}
_SATURATED = "jpg by 8"
SERVER = "over HTTP"


class AnswerError(ValueError):
    """The server did not answer as it should."""


def run(options: Options) -> Report:
    """Time the server and the floor.

    Raises:
        AnswerError: a request was refused or failed.
        ContestantError, ServerError: one of them could not be started.
    """
    bundle = trained_model(options.folder)
    files = photographs(options.folder / "images")
    fleet = Fleet(bundle.parent.parent, {CATEGORY: (bundle.name,)}, (), SIZE)
    images = {file.suffix[1:]: replace(fleet, pictures=(file.read_bytes(),)) for file in files}
    floor = f"backbone {options.engine}"
    command = options.our_command("backbone", bundle, options.engine, *files)
    rates: list[float] = []
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flowgauge-bench-")))
        [contestant] = load_all(stack, [(floor, command)], options.folder / "logs", options.threads)
        settings = engines.server_settings(options.engine, options.threads)
        server = stack.enter_context(Server(fleet.models, work, **settings))
        for one in images.values():
            send(server, one, 1, _WARM_UP_SECONDS)
        ways: dict[tuple[str, str], Callable[[], Turn]] = {}
        for kind, one in images.items():
            ways[SERVER, kind] = partial(_alone, server, one, options.seconds)
            ways[floor, kind] = partial(contestant.turn, kind, options.seconds)
        ways[SERVER, _SATURATED] = partial(_saturated, server, images["jpg"], 2 * options.seconds, rates)
        ways[floor, _SATURATED] = partial(contestant.turn, _SATURATED, 2 * options.seconds)
        turns = in_turns(ways, options.rounds)
        results = Results(turns, {SERVER: server.peak_bytes(), floor: contestant.peak_bytes})
    return Report(
        "http",
        {"backbone": DEFAULT, "engine": options.engine, **options.settings()},
        [_table(results)],
        ratios(results, floor),
        [f"saturated by {_CLIENTS} clients: {statistics.median(rates):.1f} images a second"],
        figures=results.figures(),
    )


def _alone(server: Server, fleet: Fleet, seconds: float) -> Turn:
    return Turn([shot.seconds for shot in send(server, fleet, 1, seconds)], 0.0)


def _saturated(server: Server, fleet: Fleet, seconds: float, rates: list[float]) -> Turn:
    cpu = server.cpu_seconds()
    shots = send(server, fleet, _CLIENTS, seconds)
    rates.append(per_second(shots))
    return Turn([shot.seconds for shot in shots], server.cpu_seconds() - cpu)


def ratios(results: Results, floor: str) -> list[Ratio]:
    """The server over the floor."""
    found = [
        ratio(
            f"latency of a 900 px {title} over HTTP over decoding and backbone",
            results.per_round(SERVER, kind),
            results.per_round(floor, kind),
        )
        for kind, title in _KINDS.items()
    ]
    cpu = (results.cpu_per_round(name, _SATURATED) for name in (SERVER, floor))
    return [*found, ratio("CPU time of an image at saturation over decoding and backbone", *cpu)]


def _table(results: Results) -> Table:
    rows = []
    for name, peak in results.peaks.items():
        latency = [quantiles([t.seconds for t in results.turns[name, kind]]) for kind in _KINDS]
        cpu = statistics.median(results.cpu_per_round(name, _SATURATED))
        rows.append([name, *latency, f"{cpu:.2f}", f"{peak / 2**20:.0f}"])
    latencies = [f"900 px {title}: p50 / p95 / p99 ms" for title in _KINDS.values()]
    header = ["", *latencies, "saturated: CPU ms an image", "peak MiB"]
    return Table("One client, and saturated", header, rows)


def send(server: Server, fleet: Fleet, clients: int, seconds: float) -> list[Shot]:
    """Let clients send images; AnswerError if one was not inspected."""
    query = "?store=false"
    shots = asyncio.run(closed_loop(server.port, fleet, clients=clients, seconds=seconds, query=query))
    if wrong := [shot for shot in shots if shot.status != 200]:
        said = wrong[0].answer.body[:300] if wrong[0].answer else b"the connection was lost"
        raise AnswerError(f"{len(wrong)} of {len(shots)} requests were not answered with 200: {said!r}")
    return shots
