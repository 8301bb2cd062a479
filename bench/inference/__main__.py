"""python -m bench.inference model|anomalib|http|all

model: the complete model over its bare backbone, on every engine.
anomalib: FlowGauge beside anomalib's FastFlow and PatchCore.
http: the service over decoding and the bare backbone.

Models are trained and exported once, into --folder. Ratios are of figures of the same round; their median
counts. The machine should have nothing else to do.
"""

import argparse
import importlib
import sys
from dataclasses import fields
from pathlib import Path

import flowgauge

PARTS = ("model", "anomalib", "http")
ON_GPU = ("model", "anomalib")
_RESULTS = Path("bench-results/inference")


def main() -> int:
    """Run the parts that were asked for; the exit code is 1 if one could not be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=[*PARTS, "all"], metavar="PART")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="of model and anomalib")
    parser.add_argument("--engine", help="of the server, such as torch-bfloat16; by default what it chooses")
    parser.add_argument(
        "--anomalib-python",
        type=Path,
        dest="anomalib",
        help="with anomalib[openvino] 2.7; by default that of ANOMALIB_PYTHON, or of .bench-venv",
    )
    parser.add_argument("--folder", type=Path, default=_RESULTS, help="of models that runs use again")
    parser.add_argument("--out", type=Path, default=_RESULTS)
    arguments = parser.parse_args()
    parts = PARTS if "all" in arguments.parts else tuple(dict.fromkeys(arguments.parts))
    if arguments.device == "cuda" and set(parts) - set(ON_GPU):
        parser.error(f"on a GPU there are the parts {' and '.join(ON_GPU)}; got {', '.join(parts)}")
    # As the command does before it loads torch: trainings, and what is loaded here, are as theirs.
    flowgauge.keep_freed_memory()
    flowgauge.spin_briefly()
    return _run(arguments, parts)


def _run(arguments: argparse.Namespace, parts: tuple[str, ...]) -> int:
    import torch

    from bench.inference import engines
    from bench.inference.options import Options

    if arguments.device == "cuda" and not torch.cuda.is_available():
        print(f"error: there is no GPU: torch {torch.__version__} sees no CUDA device", file=sys.stderr)
        return 2
    engine = arguments.engine or engines.default()
    if engine not in engines.ENGINES:
        print(f"error: no engine {engine!r}; there are: {', '.join(engines.ENGINES)}", file=sys.stderr)
        return 2
    arguments.engine = engine
    options = Options(**{field.name: getattr(arguments, field.name) for field in fields(Options)})
    code = 0
    for name in parts:
        try:
            report = importlib.import_module(f"bench.inference.{name}").run(options)
        except ValueError as error:  # the other parts run all the same
            print(f"{name} could not be measured: {error}", file=sys.stderr)
            code = 1
            continue
        code |= report.write(arguments.out)
    return code


if __name__ == "__main__":
    sys.exit(main())
