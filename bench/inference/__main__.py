"""python -m bench.inference model|anomalib|http|categories|growth|all

Prints tables in Markdown and writes them, with all that was measured, to OUT. Figures that compare are
ratios within a round, of which the median counts: rounds see the machine as it is then, and the machine
should have nothing else to do. Models are trained, exported and copied once, into --folder.
"""

import argparse
import importlib
import sys
from pathlib import Path

import flowgauge

PARTS = ("model", "anomalib", "http", "categories", "growth")
_RESULTS = Path("bench-results/inference")


def main() -> int:
    """Run the parts that were asked for; the exit code is 1 if one could not be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=[*PARTS, "all"], metavar="PART")
    parser.add_argument("--rounds", type=_positive, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn")
    parser.add_argument("--threads", type=_positive, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="of model and anomalib")
    parser.add_argument("--engine", help="of the server, such as torch-bfloat16; by default what it chooses")
    parser.add_argument(
        "--anomalib-python",
        type=Path,
        help="an interpreter with anomalib[openvino] 2.7; by default that of the variable ANOMALIB_PYTHON,\n"
        "and where that is not set an environment of its own, made in .bench-venv",
    )
    parser.add_argument("--folder", type=Path, default=_RESULTS, help="of models that runs use again")
    parser.add_argument("--out", type=Path, default=_RESULTS)
    asked = parser.parse_args()
    # As the command does before it loads torch: trainings, and what is loaded here, are as theirs.
    flowgauge.keep_freed_memory()
    flowgauge.spin_briefly()
    return _run(asked)


def _run(asked: argparse.Namespace) -> int:
    from bench.inference import report
    from bench.inference.engines import EngineNameError, default, precision_of
    from bench.inference.gpu import GpuError, gpu_for
    from bench.inference.options import Options

    names = PARTS if "all" in asked.parts else tuple(dict.fromkeys(asked.parts))
    place = report.where()
    try:
        engine = asked.engine or default()
        precision_of(engine)
        if asked.device == "cuda":
            place["gpu"] = gpu_for(names)
    except (EngineNameError, GpuError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options = Options(
        folder=asked.folder,
        rounds=asked.rounds,
        seconds=asked.seconds,
        threads=asked.threads,
        device=asked.device,
        engine=engine,
        anomalib=asked.anomalib_python,
    )
    pages = []
    failed = False
    for name in names:
        try:
            part = importlib.import_module(f"bench.inference.{name}").run(options)
        except ValueError as error:  # one fails, the others run all the same
            print(f"{name} could not be measured: {error}", file=sys.stderr)
            failed = True
            continue
        pages.append(report.write(part, asked.out, place))
    (asked.out / "table.md").write_text("\n".join(pages))
    return int(failed)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
