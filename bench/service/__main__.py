"""Promises of the service under load: a scenario fails if one is broken.

    python -m bench.service swap|overload|fairness|crash|saturation|training|all

The scenarios are

    swap        versions are activated and rolled back under load
    overload    five times more requests arrive than the server can answer
    fairness    one category floods the server while another sends little
    crash       `kill -9` under load, again and again
    saturation  many clients of many categories
    training    a job trains beside a line that sends images

Each runs against a real server of small models, which are trained once into --folder. Nothing else is
measured beside it. The report has the figures and the broken promises; the exit code is 1 if there are any,
and the server's log then lies beside the report, in --out. The machine should have nothing else to do.
"""

import argparse
import importlib
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import flowgauge

SCENARIOS = ("swap", "overload", "fairness", "crash", "saturation", "training")


def main() -> int:
    """Run the requested scenarios; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.service",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("scenario", choices=[*SCENARIOS, "all"])
    parser.add_argument(
        "--size",
        type=int,
        default=256,
        help="side of the models' input in pixels (default: 256, the default model)",
    )
    parser.add_argument("--categories", type=int, default=8)
    parser.add_argument("--clients", type=int, help="at a time (default: the scenario's)")
    parser.add_argument("--seconds", type=float, help="of load (default: the scenario's)")
    parser.add_argument("--rounds", type=int, help="of training (default: 3)")
    parser.add_argument("--rate", type=float, help="images a second of training (default: 4)")
    parser.add_argument("--job-threads", type=int, help="of training (default: the server's choice)")
    parser.add_argument("--kills", type=int, help="number of kills in crash")
    parser.add_argument("--timeout-ms", type=int, help="deadline of requests in overload and fairness")
    parser.add_argument(
        "--folder", type=Path, default=Path("bench-results/fleet"), help="of the trained models"
    )
    parser.add_argument("--out", type=Path, default=Path("bench-results/service"))
    options = parser.parse_args()
    # The same settings as those of the command, before torch is loaded.
    flowgauge.keep_freed_memory()
    flowgauge.spin_briefly()
    names = SCENARIOS if options.scenario == "all" else (options.scenario,)
    return max([_run(name, options) for name in names])


def _run(name: str, options: argparse.Namespace) -> int:
    from bench.report import Report, figures_table
    from tests.support import fleet

    folder = options.folder / str(options.size)
    print(f"{name}: {options.categories} categories in {folder}", flush=True)
    models = fleet.make(folder, size=options.size, categories=options.categories, versions=2)
    arguments: dict[str, Any] = {}
    if name == "training":
        arguments = {name: getattr(options, name) for name in ("rounds", "rate", "job_threads")}
    else:
        arguments["clients"] = options.clients
    arguments |= {"kills": options.kills} if name == "crash" else {"seconds": options.seconds}
    if name in ("overload", "fairness"):
        arguments["timeout_ms"] = options.timeout_ms
    given = {key: value for key, value in arguments.items() if value is not None}
    with tempfile.TemporaryDirectory(prefix="flowgauge-bench-") as work:
        scenario = importlib.import_module(f"bench.service.{name}")
        figures, failures = scenario.run(models, Path(work), **given)
        if failures:
            options.out.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(work) / "server.log", options.out / f"{name}.log")
    settings = {"input size": options.size, "categories": options.categories}
    tables = [figures_table(figures)]
    return Report(name, settings, tables, failures=failures, figures=figures).write(options.out)


if __name__ == "__main__":
    sys.exit(main())
