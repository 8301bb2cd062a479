"""Speed and memory of inference, beside the bare backbone and anomalib's models.

    python -m bench.inference all
    python -m bench.inference model http --rounds 5
    python -m bench.inference model anomalib --device cuda

The parts are

    model     the complete model beside its backbone, on every engine
    anomalib  FlowGauge beside anomalib's FastFlow and PatchCore
    http      the service beside decoding and the backbone

Models are trained and exported once, into --folder. Contestants take turns, a ratio divides figures of the
same round, and its median counts. The machine should have nothing else to do. Reports go to --out.
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
    """Run the requested parts; return 1 if one could not be measured, 2 on wrong options."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.inference",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("parts", nargs="+", choices=[*PARTS, "all"], metavar="PART")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn (default: 2)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="of the parts model and anomalib"
    )
    parser.add_argument("--engine", help="of the server, such as torch-bfloat16 (default: what it chooses)")
    parser.add_argument(
        "--anomalib-python",
        type=Path,
        dest="anomalib",
        help="interpreter with anomalib[openvino] 2.7 (default: ANOMALIB_PYTHON, then .bench-venv)",
    )
    parser.add_argument(
        "--folder", type=Path, default=_RESULTS, help="of trained models, which later runs use again"
    )
    parser.add_argument("--out", type=Path, default=_RESULTS)
    arguments = parser.parse_args()
    parts = PARTS if "all" in arguments.parts else tuple(dict.fromkeys(arguments.parts))
    if arguments.device == "cuda" and set(parts) - set(ON_GPU):
        parser.error(f"--device cuda works for {' and '.join(ON_GPU)} only; got {', '.join(parts)}")
    # The same settings as those of the command, before torch is loaded.
    flowgauge.keep_freed_memory()
    flowgauge.spin_briefly()
    return _run(arguments, parts)


def _run(arguments: argparse.Namespace, parts: tuple[str, ...]) -> int:
    import torch

    from bench.inference import engines
    from bench.inference.options import Options

    if arguments.device == "cuda" and not torch.cuda.is_available():
        print(f"error: no GPU: torch {torch.__version__} sees no CUDA device", file=sys.stderr)
        return 2
    engine = arguments.engine or engines.default()
    if engine not in engines.ENGINES:
        print(f"error: unknown engine {engine!r}; use one of {', '.join(engines.ENGINES)}", file=sys.stderr)
        return 2
    arguments.engine = engine
    options = Options(**{field.name: getattr(arguments, field.name) for field in fields(Options)})
    code = 0
    for name in parts:
        try:
            report = importlib.import_module(f"bench.inference.{name}").run(options)
        except ValueError as error:  # run the other parts
            print(f"error: part {name} could not be measured: {error}", file=sys.stderr)
            code = 1
            continue
        code |= report.write(arguments.out)
    return code


if __name__ == "__main__":
    sys.exit(main())
