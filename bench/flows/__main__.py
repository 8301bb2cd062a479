"""Density and speed of the flow library, beside zuko, normflows and FrEIA.

    pip install -e '.[bench]'
    python -m bench.flows density|speed|all

density fits recipes to two-dimensional targets of known density, beside zuko and normflows, and reports KL
divergences. speed times training steps of a Glow, beside normflows and FrEIA. Reports go to
bench-results/flows.
"""

import argparse
import importlib
import sys
from pathlib import Path

PARTS = ("density", "speed")


def main() -> int:
    """Run the requested parts; return 1 if ours is worse in most pairs, 2 without a library."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.flows",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("part", choices=[*PARTS, "all"])
    parser.add_argument(
        "--quick", action="store_true", help="a few steps, to check that it runs; the figures mean nothing"
    )
    parser.add_argument("--out", type=Path, default=Path("bench-results/flows"))
    options = parser.parse_args()
    names = PARTS if options.part == "all" else (options.part,)
    try:
        parts = [importlib.import_module(f"bench.flows.{name}") for name in names]
        codes: list[int] = [part.run(quick=options.quick).write(options.out) for part in parts]
        return max(codes)
    except ModuleNotFoundError as error:
        print(
            f"error: {error.name} is not installed. Run `pip install -e '.[bench]'` in the checkout.",
            file=sys.stderr,
        )
        return 2


if __name__ == "__main__":
    sys.exit(main())
