"""python -m bench.service swap|overload|fairness|unlike|crash|batching|cpu|all

Trains small models of 8 categories once, into --folder, and then runs a scenario against a server of them.
Prints the figures and writes them to OUT/SCENARIO.json. If anything was not as promised, the exit code is 1
and the server's log lies beside them. The machine should have nothing else to do meanwhile.
"""

import argparse
import importlib
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import flowgauge

SCENARIOS = ("swap", "overload", "fairness", "unlike", "crash", "batching", "cpu")


def main() -> int:
    """Run the scenarios that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("scenario", choices=[*SCENARIOS, "all"])
    parser.add_argument(
        "--size", type=int, default=256, help="side of the models' input; 256 is the default model"
    )
    parser.add_argument("--categories", type=int, default=8)
    parser.add_argument("--versions", type=int, default=2, help="of each category")
    parser.add_argument("--clients", type=int, help="at a time; by default as the scenario promises")
    parser.add_argument("--seconds", type=float, help="of load; by default as the scenario promises")
    parser.add_argument("--kills", type=int, help="of crash")
    parser.add_argument(
        "--timeout-ms", type=int, help="of overload, fairness and unlike: deadline of every request"
    )
    parser.add_argument("--folder", type=Path, default=Path("bench-results/fleet"), help="of the models")
    parser.add_argument("--out", type=Path, default=Path("bench-results/service"))
    options = parser.parse_args()
    # As the command does before it loads torch, so that the bare loop has no other memory and threads.
    flowgauge.keep_freed_memory()
    flowgauge.spin_briefly()
    names = SCENARIOS if options.scenario == "all" else (options.scenario,)
    return max([_run(name, options) for name in names])


def _run(name: str, options: argparse.Namespace) -> int:
    from bench.service import figures, fleet

    folder = options.folder / str(options.size)
    print(f"{name}: {options.categories} categories of {options.versions} versions in {folder}", flush=True)
    models = fleet.make(folder, size=options.size, categories=options.categories, versions=options.versions)
    wanted: dict[str, Any] = {"clients": options.clients}
    if name == "crash":
        wanted["kills"] = options.kills
    else:
        wanted["seconds"] = options.seconds
    if name in ("overload", "fairness", "unlike"):
        wanted["timeout_ms"] = options.timeout_ms
    given = {key: value for key, value in wanted.items() if value is not None}
    with tempfile.TemporaryDirectory(prefix="flowgauge-bench-") as work:
        result, failures = importlib.import_module(f"bench.service.{name}").run(models, Path(work), **given)
        if failures:
            options.out.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(work) / "server.log", options.out / f"{name}.log")
    return figures.report(name, result, failures, options.out)


if __name__ == "__main__":
    sys.exit(main())
