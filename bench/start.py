"""How long a server takes until it is ready, its first time and after, beside importing torch alone.

    python -m bench.start [--models DIR] [--rounds 5]

Ready means that /health/ready says so: every model is loaded, verified, warm. The first start compiles for
OpenVINO, where it is installed, into an empty folder; the next one finds that there. Without --models one is
trained on made-up parts for a minute. In each round all take their turn; medians, with the smallest and the
largest.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.flows.comparison import table
from bench.inference import models
from bench.service.server import Server
from examples.children import FLOWGAUGE

# Of one start: seconds by the clock, seconds of CPU, and bytes held at its end, None of what has ended.
Start = tuple[float, float, int | None]


def program(*command: str) -> Start:
    """Run a program to its end.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    begun = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.monotonic() - begun, usage.ru_utime + usage.ru_stime, None


def serve(folder: Path, work: Path) -> Start:
    """Start a server of a models folder, and stop it as soon as it is ready.

    Raises:
        ServerError: it did not get ready, or did not stop as it should.
    """
    server = Server(folder, work, engine_cache=str(work / "engines"))
    ready = server.start()
    try:
        return ready, server.cpu_seconds(), server.resident_bytes()
    finally:
        server.stop()


def report(found: Mapping[str, Sequence[Start]], floor: str) -> str:
    """The measured as Markdown; `floor` is the one that the others are set against, round by round."""
    rows = []
    for name, starts in found.items():
        over = [one[0] / least[0] for one, least in zip(starts, found[floor], strict=True)]
        seconds = statistics.median(one[0] for one in starts)
        cpu = statistics.median(one[1] for one in starts)
        held = [nbytes / 2**20 for *_, nbytes in starts if nbytes is not None]
        memory = f"{statistics.median(held):.0f}" if held else ""
        rows.append([name, f"{seconds:.2f}", f"{cpu:.2f}", memory, _range(over)])
    return table(["", "seconds", "CPU s", "MiB", "over the floor"], rows)


def _range(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", type=Path, help="a models folder; by default one is trained")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--out", type=Path, default=Path("bench-results/inference"), help="of what is trained"
    )
    options = parser.parse_args()
    folder = options.models or models.model(options.out).parents[1]
    floor = "python -c 'import torch'"
    with tempfile.TemporaryDirectory(prefix="flowgauge-start-") as temporary:
        work = Path(temporary)
        turns: dict[str, Callable[[int], Start]] = {
            floor: lambda _: program(sys.executable, "-c", "import torch"),
            "flowgauge --help": lambda _: program(*FLOWGAUGE, "--help"),
            "flowgauge serve, the first time": lambda i: serve(folder, work / f"first-{i}"),
            "flowgauge serve, after that": lambda _: serve(folder, work / "first-0"),
        }
        found: dict[str, list[Start]] = {name: [] for name in turns}
        for i in range(options.rounds):
            for name, turn in turns.items():
                found[name].append(turn(i))
    print(report(found, floor))


if __name__ == "__main__":
    main()
