"""python -m bench.service swap|overload|fairness|crash|saturation|all

swap: versions are activated and rolled back under load.
overload: five times more requests than the server can answer.
fairness: one category floods the server while another sends little.
crash: `kill -9` under load, again and again.
saturation: many clients of many categories.

Trains small models once, into --folder, and runs a scenario against a server of them. The exit code is 1 if
a promise was broken, and then the server's log lies beside the report. The machine should have nothing else
to do.
"""

import argparse
import importlib
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import flowgauge

SCENARIOS = ("swap", "overload", "fairness", "crash", "saturation")


def main() -> int:
    """Run the scenarios that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("scenario", choices=[*SCENARIOS, "all"])
    parser.add_argument(
        "--size", type=int, default=256, help="side of the models' input; 256 is the default model"
    )
    parser.add_argument("--categories", type=int, default=8)
    parser.add_argument("--clients", type=int, help="at a time; by default as the scenario promises")
    parser.add_argument("--seconds", type=float, help="of load; by default as the scenario promises")
    parser.add_argument("--kills", type=int, help="of crash")
    parser.add_argument("--timeout-ms", type=int, help="deadline of requests of overload and fairness")
    parser.add_argument("--folder", type=Path, default=Path("bench-results/fleet"), help="of the models")
    parser.add_argument("--out", type=Path, default=Path("bench-results/service"))
    options = parser.parse_args()
    # As the command does before it loads torch.
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
    wanted: dict[str, Any] = {"clients": options.clients}
    wanted |= {"kills": options.kills} if name == "crash" else {"seconds": options.seconds}
    if name in ("overload", "fairness"):
        wanted["timeout_ms"] = options.timeout_ms
    given = {key: value for key, value in wanted.items() if value is not None}
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
