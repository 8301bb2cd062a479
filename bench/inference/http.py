"""The service beside decoding and the bare backbone: latency, and CPU time at saturation.

The server and the floor are processes that take turns. Images are sent with store=false. The floor decodes
and resizes with OpenCV and runs the backbone on the server's engine: one file after the other for latency,
eight files per pass of the backbone for CPU time.
"""

import asyncio
import statistics
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench.contestants import Results, TimedCalls, format_quantiles, start_contestants
from bench.inference import engines
from bench.inference.models import CATEGORY, DEFAULT, SIZE, photographs, trained_model
from bench.inference.options import Options
from bench.interleaving import interleave
from bench.report import Ratio, Report, Table, ratio
from bench.service.load import Exchange, closed_loop, per_second
from tests.support.fleet import Fleet
from tests.support.server import Server

_CLIENTS = 32
_WARM_UP_SECONDS = 3.0
_KINDS = {"jpg": "JPEG", "png": "PNG"}
_SATURATED = "jpg by 8"
SERVER = "over HTTP"


class AnswerError(ValueError):
    """The server did not inspect an image."""


def run(options: Options) -> Report:
    """Measure the server and the floor.

    Raises:
        AnswerError: a request was refused or failed.
        ContestantError, ServerError: one of them did not start.
    """
    bundle = trained_model(options.folder)
    files = photographs(options.folder / "images")
    fleet = Fleet(bundle.parent.parent, {CATEGORY: (bundle.name,)}, (), SIZE)
    images = {file.suffix[1:]: replace(fleet, images=(file.read_bytes(),)) for file in files}
    floor = f"backbone {options.engine}"
    command = options.contestant_command("backbone", bundle, options.engine, *files)
    rates: list[float] = []
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flowgauge-bench-")))
        [contestant] = start_contestants(stack, [(floor, command)], options.folder / "logs", options.threads)
        settings = engines.server_settings(options.engine, options.threads)
        server = stack.enter_context(Server(fleet.models, work, **settings))
        for one in images.values():
            send(server, one, 1, _WARM_UP_SECONDS)
        measurements: dict[tuple[str, str], Callable[[], TimedCalls]] = {}
        for kind, one in images.items():
            measurements[SERVER, kind] = partial(_one_client, server, one, options.seconds)
            measurements[floor, kind] = partial(contestant.measure, kind, options.seconds)
        measurements[SERVER, _SATURATED] = partial(
            _saturated, server, images["jpg"], 2 * options.seconds, rates
        )
        measurements[floor, _SATURATED] = partial(contestant.measure, _SATURATED, 2 * options.seconds)
        timings = interleave(measurements, options.rounds)
        results = Results(timings, {SERVER: server.peak_bytes(), floor: contestant.peak_bytes})
    return Report(
        "http",
        {"backbone": DEFAULT, "engine": options.engine, **options.settings()},
        [_table(results)],
        ratios(results, floor),
        [f"saturated by {_CLIENTS} clients: {statistics.median(rates):.1f} images a second"],
        figures=results.figures(),
    )


def _one_client(server: Server, fleet: Fleet, seconds: float) -> TimedCalls:
    return TimedCalls([one.seconds for one in send(server, fleet, 1, seconds)], 0.0)


def _saturated(server: Server, fleet: Fleet, seconds: float, rates: list[float]) -> TimedCalls:
    cpu = server.cpu_seconds()
    exchanges = send(server, fleet, _CLIENTS, seconds)
    rates.append(per_second(exchanges))
    return TimedCalls([one.seconds for one in exchanges], server.cpu_seconds() - cpu)


def ratios(results: Results, floor: str) -> list[Ratio]:
    """Divide the server's latency and CPU time by the floor's."""
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
        latency = [
            format_quantiles([timed.seconds for timed in results.timings[name, kind]]) for kind in _KINDS
        ]
        cpu = statistics.median(results.cpu_per_round(name, _SATURATED))
        rows.append([name, *latency, f"{cpu:.2f}", f"{peak / 2**20:.0f}"])
    latencies = [f"900 px {title}: p50 / p95 / p99 ms" for title in _KINDS.values()]
    header = ["", *latencies, "saturated: CPU ms an image", "peak MiB"]
    return Table("One client, and saturated", header, rows)


def send(server: Server, fleet: Fleet, clients: int, seconds: float) -> list[Exchange]:
    """Let clients send images for some seconds.

    Raises:
        AnswerError: an image was not inspected.
    """
    query = "?store=false"
    exchanges = asyncio.run(closed_loop(server.port, fleet, clients=clients, seconds=seconds, query=query))
    if failed := [one for one in exchanges if one.status != 200]:
        reason = failed[0].response.body[:300] if failed[0].response else b"the connection was lost"
        raise AnswerError(
            f"{len(failed)} of {len(exchanges)} requests were not answered with 200: {reason!r}"
        )
    return exchanges
