"""How long a server takes until it is ready, its first time and after, beside importing torch alone.

    python -m bench.start [--models DIR] [--rounds 5]

Ready means that /health/ready says so: every model is loaded, verified, warm. A picture is then sent, and a
few more: the first should take little longer than they. The first start compiles for OpenVINO, where it is
installed, into an empty folder; the next one finds that there. Without --models one is trained on made-up
parts for a minute. In each round all take their turn; medians, with the smallest and the largest.
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
from typing import NamedTuple

import cv2
import httpx
import numpy as np

from bench.flows.comparison import table
from bench.inference import models
from bench.service.server import Server
from examples.children import FLOWGAUGE

_SIDE = 256
_LATER = 5


class Start(NamedTuple):
    """Of one start.

    Attributes:
        seconds: by the clock.
        cpu: seconds of CPU.
        held: bytes of memory at its end, None of what has ended.
        first: seconds of the first picture, None where nothing inspects.
        later: of those after it, in the middle.
    """

    seconds: float
    cpu: float
    held: int | None = None
    first: float | None = None
    later: float | None = None


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
    return Start(time.monotonic() - begun, usage.ru_utime + usage.ru_stime)


def serve(folder: Path, work: Path) -> Start:
    """Start a server of a models folder, send it a few pictures once it is ready, and stop it.

    Raises:
        ServerError: it did not get ready, or did not stop as it should.
        httpx.HTTPError: a picture was not inspected.
    """
    server = Server(folder, work, engine_cache=str(work / "engines"))
    ready = server.start()
    try:
        start = Start(ready, server.cpu_seconds(), server.resident_bytes())
        with server.client() as client:
            category = client.get("/v1/models").raise_for_status().json()["models"][0]["category"]
            noise = np.random.default_rng(0).integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)
            picture = cv2.imencode(".jpg", noise)[1].tobytes()
            first, *rest = [_inspect(client, category, picture) for _ in range(1 + _LATER)]
        return start._replace(first=first, later=statistics.median(rest))
    finally:
        server.stop()


def _inspect(client: httpx.Client, category: str, picture: bytes) -> float:
    """Seconds that one picture takes."""
    url, headers = f"/v1/models/{category}/predict?store=false", {"Content-Type": "image/jpeg"}
    begun = time.monotonic()
    client.post(url, content=picture, headers=headers).raise_for_status()
    return time.monotonic() - begun


def report(found: Mapping[str, Sequence[Start]], floor: str) -> str:
    """The measured as Markdown; `floor` is the one that the others are set against, round by round."""
    rows = []
    for name, starts in found.items():
        over = [one.seconds / least.seconds for one, least in zip(starts, found[floor], strict=True)]
        seconds = statistics.median(one.seconds for one in starts)
        cpu = statistics.median(one.cpu for one in starts)
        measured = (
            _middle([one.held for one in starts], 2**-20),
            _middle([one.first for one in starts], 1e3),
            _middle([one.later for one in starts], 1e3),
        )
        rows.append([name, f"{seconds:.2f}", f"{cpu:.2f}", *measured, _range(over)])
    return table(["", "seconds", "CPU s", "MiB", "first picture, ms", "then", "over the floor"], rows)


def _middle(values: Sequence[float | None], unit: float) -> str:
    """The median of what was measured, in a unit; nothing where nothing was."""
    measured = [value * unit for value in values if value is not None]
    return f"{statistics.median(measured):.0f}" if measured else ""


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
