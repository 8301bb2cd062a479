"""How many servers does a plant need? Measures one server, fits the model, and checks its predictions.

    python -m bench.capacity measure
    python -m bench.capacity plan --replicas 100 --categories 10000 --rate 20000 --batch-ms 4 1

`measure` fits the model to a server under loads of waiting clients. Then it predicts the latency of images
that arrive at random, measures it, and reports both. `plan` answers for parameters that were measured or
assumed. The machine should have nothing else to do. docs/explanation/capacity.md explains the model.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

import numpy as np

import flowgauge
from bench.capacity import measure, plan
from bench.capacity.queueing import BatchServer
from bench.report import RESULTS, Report, Table
from bench.service.load import open_loop
from tests.support import fleet
from tests.support.server import Server

_MAX_BATCH = 16  # the server's default
_SIMULATED = 100_000  # images


def main() -> int:
    """Run a command; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.capacity", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "capacity")
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure", help="fit the model to a server, and check it")
    measuring.add_argument("--folder", type=Path, default=RESULTS / "fleet", help="of the trained models")
    measuring.add_argument("--size", type=int, default=256, help="side of the models' input in pixels")
    measuring.add_argument("--categories", type=int, default=4)
    measuring.add_argument("--seconds", type=float, default=15, help="of each load")
    measuring.add_argument(
        "--uses", type=float, nargs="+", default=[0.3, 0.6, 0.8], help="shares of the capacity"
    )
    measuring.add_argument("--inspections", type=int, default=3000, help="filed by each server")
    planning = commands.add_parser("plan", help="answer for measured or assumed parameters")
    planning.add_argument("--replicas", type=int, required=True)
    planning.add_argument("--categories", type=int, required=True)
    planning.add_argument("--rate", type=float, required=True, help="images a second of the plant")
    planning.add_argument("--exponent", type=float, default=0.8, help="of Zipf's law of the categories")
    planning.add_argument(
        "--batch-ms", type=float, nargs=2, required=True, metavar=("FIXED", "IMAGE"), help="time of a batch"
    )
    planning.add_argument("--max-batch", type=int, default=_MAX_BATCH)
    planning.add_argument("--overhead-ms", type=float, default=15, help="of a request outside of its batch")
    planning.add_argument("--cores", type=float, default=16, help="of a replica")
    planning.add_argument("--load-ms", type=float, default=500, help="to load a model")
    planning.add_argument("--places", type=int, default=400, help="models in memory")
    planning.add_argument("--filed", type=float, default=5000, help="inspections a second in the database")
    options = parser.parse_args()
    if options.command == "plan":
        print(_plan(options).markdown)
        return 0
    flowgauge.keep_freed_memory()
    flowgauge.spin_briefly()
    return _measure(options)


def _measure(options: argparse.Namespace) -> int:
    folder = options.folder / str(options.size)
    models = fleet.make(folder, size=options.size, categories=options.categories, versions=2)
    with (
        tempfile.TemporaryDirectory(prefix="flowgauge-bench-") as work,
        Server(models.models, Path(work)) as server,
    ):
        seconds = options.seconds
        found = measure.measure_replica(server, models, seconds=seconds, max_batch=_MAX_BATCH)
        checks = [_check(server, models, found, use, seconds, seed) for seed, use in enumerate(options.uses)]
    filed = measure.measure_filing((1, 2, 4), options.inspections)
    replica, batches = found.replica, found.replica.batches
    times = [batches.fixed, batches.per_image, replica.overhead, replica.load_seconds]
    tables = [
        Table(
            "One replica",
            ["batch ms", "per image ms", "overhead ms", "load ms", "models in memory", "images/s"],
            [[*(f"{1000 * time:.2f}" for time in times), str(replica.places), f"{batches.capacity:.1f}"]],
        ),
        Table(
            "Clients that wait",
            ["clients", "images/s", "images a batch"],
            [[str(n), f"{rate:.1f}", f"{found.batches[n]:.1f}"] for n, rate in found.closed.items()],
        ),
        Table(
            "Images at random times",
            ["use", "images/s", "p50 ms, model", "p95 ms, model", "p50 ms", "p95 ms"],
            checks,
        ),
        Table(
            "Inspections filed into one PostgreSQL",
            ["servers", "inspections/s"],
            [[str(number), f"{rate:.0f}"] for number, rate in filed.items()],
        ),
    ]
    settings = {"input size": options.size, "categories": options.categories}
    return Report("capacity", settings, tables, figures={"filed": filed}).write(options.out)


def _check(
    server: Server, models: fleet.Fleet, found: measure.Measured, use: float, seconds: float, seed: int
) -> list[str]:
    """Send images at random times; return the row of predicted and measured latencies."""
    rate = use * max(found.closed.values())
    sent = asyncio.run(open_loop(server.port, models, rate=rate, seconds=seconds, poisson=True, seed=seed))
    if failed := [one.status for one in sent if one.status != 200]:
        raise ValueError(f"requests failed: {failed}")
    predicted = found.replica.overhead + found.replica.batches.simulate(rate, _SIMULATED)
    latencies = [np.quantile(times, (0.5, 0.95)) for times in (predicted, [one.seconds for one in sent])]
    return [f"{use:.0%}", f"{rate:.1f}", *(f"{1000 * time:.1f}" for pair in latencies for time in pair)]


def _plan(options: argparse.Namespace) -> Table:
    fixed, per_image = (milliseconds / 1000 for milliseconds in options.batch_ms)
    batches = BatchServer(fixed, per_image, options.max_batch)
    overhead, load = options.overhead_ms / 1000, options.load_ms / 1000
    replica = plan.Replica(batches, overhead, options.cores, load, options.places)
    plant = plan.Plant(options.rate, options.categories, options.exponent, options.replicas, options.filed)
    rows = []
    for name, by_category in (("by category", True), ("at random", False)):
        found = plan.find_load(plant, replica, by_category=by_category)
        resource, use = found.limit
        try:
            latency = "{:.1f} / {:.1f}".format(*(1000 * t for t in plan.find_latency(found, replica)))
        except ValueError:
            latency = "grows without end"
        most = plan.find_max_rate(plant, replica, by_category=by_category)
        rows.append([name, f"{found.misses:.2%}", f"{resource} {use:.0%}", latency, f"{most:.0f}"])
    header = ["routing", "images that wait for a load", "most used", "p50 / p95 ms", "images/s at 80 % use"]
    return Table("Plan", header, rows)


if __name__ == "__main__":
    sys.exit(main())
