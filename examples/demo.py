"""FlowGauge from pictures to decisions in one go: `make demo`.

Every step is a command that a user could type; this file calls them in order, puts a few test
pictures to the server over HTTP and shows what came back. A second run reuses what the first left.
"""

import argparse
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypeVar

import httpx
from rich.console import Console
from rich.table import Table

from examples.children import FLOWGAUGE, INTERRUPTED, run, serving, wait_until_ready
from flows.fastflow import images
from flows.fastflow.heatmap import contact_sheet, encode_png
from training.datasets import elpv, layout
from training.datasets.sample import DatasetError, Sample

HOST = "127.0.0.1"
STEPS = 6
MODELS = Path("models")
OUT = Path("demo")

Item = TypeVar("Item")
console = Console(highlight=False, soft_wrap=True)


class DemoError(ValueError):
    """What keeps the demo from going on, and what to do about it."""


@dataclass(frozen=True)
class Inspection:
    """A test picture and what the server said of it; the pictures are PNG files."""

    sample: Sample
    score: float
    decision: str
    p_value: float
    heatmap: bytes
    overlay: bytes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code: 0, 1 after an error, 130 after Ctrl-C."""
    options = _parse(arguments)
    for ended in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ended, _interrupt)
    try:
        demonstrate(options)
    except KeyboardInterrupt:
        console.print("\ninterrupted; what is finished stays, and `make demo` again goes on from it")
        return INTERRUPTED
    except (ValueError, OSError, httpx.HTTPError) as error:
        console.print(f"error: {error}", style="red", markup=False)
        return 1
    return 0


def demonstrate(options: argparse.Namespace) -> None:
    """The six steps."""
    begun = time.monotonic()
    expect_free(options.port)
    with step(1, "real pictures"):
        data, category = options.data, options.category
        if data is None:
            data, category = Path("datasets/elpv"), category or elpv.CATEGORY
            run("data", "elpv", "--out", str(data))
        chosen = choose(test_set(data, category))
    which = ("--data", str(data), "--category", category, "--models", str(MODELS))
    with step(2, "learn good parts, calibrate, publish"):
        run("train", *which, "--resume")
    with step(3, "measure on pictures it has never seen"):
        run("evaluate", *which)
    url = f"http://{HOST}:{options.port}"
    with serving("--models", str(MODELS), "--host", HOST, "--port", str(options.port)) as server:
        with step(4, "serve"):
            wait_until_ready(url, server)
        with step(5, f"inspect {len(chosen)} test pictures over HTTP"):
            inspections = inspect(url, category, chosen)
        with step(6, "show where the defects are"):
            show(inspections)
        console.print(f"[bold]all of it took {time.monotonic() - begun:.0f} s[/]\n")
        if options.serve == "1":
            console.print("[bold]what to try next, in another terminal[/]")
            hint(next_commands(url, category, chosen[-1].path))
            console.print(f"  {url}/ in a browser\n\nserving on {url}; Ctrl-C stops it")
            _wait_for_ctrl_c(server)
    console.print("the server has stopped")
    if options.serve == "0":
        console.print("[bold]what to try next, with the server started again[/]")
        hint([serve_command(options.port), *next_commands(url, category, chosen[-1].path)])


@contextmanager
def step(number: int, title: str) -> Iterator[None]:
    """Announce a step and, when it went well, how long it took."""
    console.rule(f"[bold]{number}/{STEPS} {title}", align="left")
    begun = time.monotonic()
    yield
    console.print(f"step {number} took {time.monotonic() - begun:.1f} s\n", style="dim")


def expect_free(port: int) -> None:
    """Fail at once if another process has the port: after the training it would be a pity."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise DemoError(
                f"port {port} of {HOST} cannot be had ({error}); take another: make demo PORT=8001"
            ) from error


def test_set(data: Path, category: str | None) -> list[Sample]:
    """Look at the layout before anything is computed; returns the test pictures."""
    if not category and data.is_dir():
        found = ", ".join(layout.categories(data)) or "none"
        raise DatasetError(f"say which category of {data}: CATEGORY=...; found: {found}")
    layout.train_images(data, category or "")
    return layout.test_samples(data, category or "")


def choose(samples: Sequence[Sample], count: int = 3) -> list[Sample]:
    """Pick `count` good and `count` defective pictures, spread evenly and over kinds of defect."""
    good = [s for s in samples if s.defect is None]
    kinds: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.defect is not None:
            kinds.setdefault(sample.defect, []).append(sample)
    if not good or not kinds:
        raise DatasetError(
            f"the test set has {len(good)} good pictures and {len(kinds)} kinds of defect; a "
            "detector is measured on both: test/good and test/<defect>"
        )
    chosen = _spread(good, count)
    if len(kinds) < count:
        return chosen + _spread([s for kind in kinds.values() for s in kind], count)
    return chosen + [_spread(kind, 1)[0] for kind in _spread(list(kinds.values()), count)]


def inspect(url: str, category: str, samples: Sequence[Sample]) -> list[Inspection]:
    """Put each picture to the server and print what it decides."""
    table = Table("picture", "truth", "score", "decision", "p-value")
    inspections = []
    # Proxies of the environment have no business with this machine's own address.
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        for sample in samples:
            one = _inspect(client, f"/v1/models/{category}/predict", sample)
            inspections.append(one)
            colour = "red" if one.decision == "REJECT" else "green"
            table.add_row(
                sample.path.name,
                sample.defect or "good",
                f"{one.score:.4g}",
                f"[{colour}]{one.decision}[/]",
                f"{one.p_value:.4g}",
            )
    console.print(table)
    return inspections


def _inspect(client: httpx.Client, path: str, sample: Sample) -> Inspection:
    answer = client.post(
        path,
        params={"inline": ["overlay", "heatmap"]},
        files={"file": (sample.path.name, sample.path.read_bytes())},
    )
    if answer.is_error:
        raise DemoError(f"the server refused {sample.path}: {answer.status_code} {answer.text}")
    said = answer.json()
    return Inspection(
        sample=sample,
        score=said["score"],
        decision=said["decision"],
        p_value=said["p_value"],
        heatmap=b64decode(said["inline"]["heatmap"]),
        overlay=b64decode(said["inline"]["overlay"]),
    )


def show(inspections: Sequence[Inspection]) -> None:
    """Write overlays, heatmaps and the contact sheet, in place of those of an earlier run."""
    overlays, heatmaps, sheet = OUT / "overlays", OUT / "heatmaps", OUT / "contact_sheet.png"
    for folder in (overlays, heatmaps):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    rows = []
    for one in inspections:
        truth, stem = one.sample.defect or "good", one.sample.path.stem
        (overlays / f"{truth}_{stem}.png").write_bytes(one.overlay)
        (heatmaps / f"{truth}_{stem}.png").write_bytes(one.heatmap)
        caption = f"{truth} {stem}: {one.decision}, score {one.score:.4g}, p {one.p_value:.4g}"
        picture = images.read(one.sample.path)
        rows.append((caption, picture, images.decode(one.heatmap), images.decode(one.overlay)))
    sheet.write_bytes(encode_png(contact_sheet(rows)))
    console.print(f"input, heatmap and overlay side by side: {sheet.resolve()}")
    console.print(f"one by one: {overlays.resolve()} and {heatmaps.resolve()}")


def serve_command(port: int) -> list[str]:
    """The command that starts the demo's server by hand."""
    return [*FLOWGAUGE, "serve", "--models", str(MODELS.resolve()), "--port", str(port)]


def next_commands(url: str, category: str, picture: Path) -> list[list[str]]:
    """Commands that work as they stand, from any folder, while the server runs."""
    predict = f"{url}/v1/models/{category}/predict"
    file = f"file=@{picture.resolve()}"
    return [
        ["curl", "-F", file, predict],
        ["curl", "-H", "Accept: image/png", "-F", file, "-o", "overlay.png", predict],
        ["curl", f"{url}/v1/models"],
    ]


def hint(commands: Sequence[Sequence[str]]) -> None:
    """Print commands to be copied into a shell."""
    for command in commands:
        console.print(f"  {shlex.join(command)}", markup=False)


def _wait_for_ctrl_c(server: subprocess.Popen[bytes]) -> None:
    try:
        server.wait()
    except KeyboardInterrupt:
        console.print()  # here it is the way to end, not an interruption


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="`make demo`, whose variables come here.")
    parser.add_argument("--data", type=Path, help="your pictures, in the layout of MVTec AD")
    parser.add_argument("--category", help="a folder of the data")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--serve", choices=("0", "1"), default="1", help="1: keep serving until Ctrl-C; 0: end"
    )
    return parser.parse_args(arguments)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _spread(items: Sequence[Item], count: int) -> list[Item]:
    """Up to `count` items at even distances from each other and half of that from the ends."""
    count = min(count, len(items))
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]


if __name__ == "__main__":
    sys.exit(main())
