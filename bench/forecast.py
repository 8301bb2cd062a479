"""What `flowgauge train` said a run would cost, over what it cost.

    python -m bench.forecast --data DIR [--category bottle] [--epochs 12] [--rounds 3]

Each round is a training in a process of its own, with nothing cached. Time depends on what else the machine
does: a forecast holds for a machine as busy as it was in the seconds before the work.
"""

import argparse
import re
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path("bench-results/forecast")
_UNITS = {"h": 3600.0, "min": 60.0, "s": 1.0, "MiB": 2.0**20, "GiB": 2.0**30}
_LINE = re.compile(r"^(forecast|it took): +(.+?) \(.*\), disk (.+?), memory (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Said:
    """Seconds, bytes of disk and bytes of memory."""

    seconds: float
    disk: float
    memory: float


def parse(output: str) -> tuple[Said, Said]:
    """The forecast, and what the run took, from what it printed.

    Raises:
        ValueError: one of the lines is missing.
    """
    found = {name: Said(*map(_value, values)) for name, *values in _LINE.findall(output)}
    if found.keys() != {"forecast", "it took"}:
        raise ValueError(f"expected a line of the forecast and one of what the run took; got\n{output}")
    return found["forecast"], found["it took"]


def _value(text: str) -> float:
    """ "3 min 20 s" as seconds, "1.4 GiB" as bytes."""
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+) (\w+)", text))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--category", default="bottle")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    ratios: dict[str, list[float]] = {"seconds": [], "disk": [], "memory": []}
    for number in range(asked.rounds):
        shutil.rmtree(FOLDER, ignore_errors=True)
        which = [f"--data={asked.data}", f"--category={asked.category}", f"--epochs={asked.epochs}"]
        where = [f"--models={FOLDER / 'models'}", f"--runs={FOLDER / 'runs'}"]
        command = [sys.executable, "-m", "flowgauge", "train", *which, *where]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        expected, taken = parse(done.stdout)
        for name, values in ratios.items():
            values.append(getattr(taken, name) / getattr(expected, name))
        print(
            f"round {number + 1}: forecast {expected.seconds:.0f} s, it took {taken.seconds:.0f} s",
            flush=True,
        )
    for name, values in ratios.items():
        spread = f"{min(values):.2f} to {max(values):.2f}"
        print(f"{name:8} taken over forecast: {statistics.median(values):.2f} ({spread})")


if __name__ == "__main__":
    main()
