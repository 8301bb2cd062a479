"""python -m bench.request_path --models MODELS --picture PART.jpg

What a picture costs over HTTP, against the least that it can cost (`bench.floor`): processor time per picture
of a server that has as much to do as it can (store=false and store=true), and the time that one client alone
waits. For the picture in several sizes, as JPEG and as PNG; server and floor in turn, so that both see the
same machine. Prints a table, and writes it to --out as JSON.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

import flowgauge
from bench.floor import Floor
from bench.service.client import Connection
from bench.service.figures import Figures, machine
from bench.service.server import Server
from flows.fastflow.images import read

FORMATS = {"jpeg": (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 90]), "png": (".png", [])}


class RefusedError(ValueError):
    """The server answered something else than an inspection."""


@dataclass
class Measured:
    """Milliseconds of one picture, a value for each round."""

    served_cpu: list[float] = field(default_factory=list)
    stored_cpu: list[float] = field(default_factory=list)
    floor_cpu: list[float] = field(default_factory=list)
    served_latency: list[float] = field(default_factory=list)
    floor_latency: list[float] = field(default_factory=list)
    batch: list[float] = field(default_factory=list)

    def figures(self) -> Figures:
        """Medians, and those of each round's ratio."""
        medians = {f"{name}": round(float(np.median(values)), 2) for name, values in vars(self).items()}
        return medians | {
            "cpu_ratio": _ratio(self.served_cpu, self.floor_cpu),
            "stored_cpu_ratio": _ratio(self.stored_cpu, self.floor_cpu),
            "latency_ratio": _ratio(self.served_latency, self.floor_latency),
        }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder with a published model")
    parser.add_argument("--category", help="by default the first one")
    parser.add_argument("--picture", type=Path, required=True, help="of the category")
    parser.add_argument(
        "--sides", type=int, nargs="+", default=[256, 512, 900], help="the picture is resized"
    )
    parser.add_argument("--formats", nargs="+", choices=list(FORMATS), default=list(FORMATS))
    parser.add_argument("--input", type=int, default=256, help="side of the model's input")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("bench-results/request_path.json"))
    options = parser.parse_args()
    flowgauge.keep_freed_memory()  # as the server does, so that the floor has no other memory and threads
    flowgauge.spin_briefly()
    category = options.category or next(path.parent.name for path in sorted(options.models.glob("*/active")))
    floor = Floor(options.input)
    rows: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory(prefix="flowgauge-bench-") as work, _quiet(options, work) as server:
        for side in options.sides:
            for name in options.formats:
                file = encoded(options.picture, side, name)
                measured = Measured()
                for _ in range(options.rounds):
                    _round(server, floor, category, file, f"image/{name}", options, measured)
                rows[f"{side} {name}"] = measured.figures()
                print(f"{side} {name}: {json.dumps(rows[f'{side} {name}'])}", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "category": category,
        "clients": options.clients,
        "floor": floor.precision,
        "pictures": rows,
        "machine": machine(),
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n")


def encoded(picture: Path, side: int, name: str) -> bytes:
    """A picture, square, of so many pixels a side, as a file of a format."""
    suffix, parameters = FORMATS[name]
    square = cv2.resize(read(picture), (side, side), interpolation=cv2.INTER_AREA)
    return cv2.imencode(suffix, square[..., ::-1], parameters)[1].tobytes()


def _quiet(options: argparse.Namespace, work: str) -> Server:
    # Thousands of copies of one picture are no history that anybody keeps.
    return Server(options.models, Path(work), retention_bytes=2**28)


def _round(
    server: Server,
    floor: Floor,
    category: str,
    file: bytes,
    media_type: str,
    options: argparse.Namespace,
    measured: Measured,
) -> None:
    for query, cpus in (("?store=false", measured.served_cpu), ("", measured.stored_cpu)):
        before, cpu = server.metrics(), server.cpu_seconds()
        times = send(server.port, f"/v1/models/{category}/predict{query}", file, media_type, options)
        time.sleep(0.2)  # what was answered is still being filed
        cpu, after = server.cpu_seconds() - cpu, server.metrics()
        cpus.append(1000 * cpu / len(times))
        images, batches = (
            after[name] - before[name]
            for name in ("flowgauge_batch_images_sum", "flowgauge_batch_images_count")
        )
    measured.batch.append(images / batches)
    measured.floor_cpu.append(
        1000 * floor.cost([file], max(1, round(measured.batch[-1])), options.seconds).cpu
    )
    alone = argparse.Namespace(clients=1, seconds=options.seconds)
    waited = send(server.port, f"/v1/models/{category}/predict?store=false", file, media_type, alone)
    measured.served_latency.append(1000 * float(np.median(waited)))
    measured.floor_latency.append(1000 * floor.cost([file], 1, options.seconds).wall)


def send(port: int, path: str, file: bytes, media_type: str, options: argparse.Namespace) -> list[float]:
    """Let clients send a file again and again; the seconds that each answer took.

    Raises:
        RefusedError: an answer was no inspection.
    """
    until = time.monotonic() + options.seconds
    times: list[float] = []

    async def client() -> None:
        async with Connection(port) as connection:
            while (begun := time.monotonic()) < until:
                answer = await connection.request("POST", path, file, {"Content-Type": media_type})
                if answer.status != 200:
                    raise RefusedError(f"{path} was answered {answer.status}: {answer.body[:300]!r}")
                times.append(time.monotonic() - begun)

    async def all_clients() -> None:
        await asyncio.gather(*(client() for _ in range(options.clients)))

    asyncio.run(all_clients())
    return times


def _ratio(ours: Sequence[float], least: Sequence[float]) -> float:
    return round(float(np.median(np.divide(ours, least))), 3)


if __name__ == "__main__":
    main()
