"""FlowGauge from images to decisions in one command: `make demo`.

Each step is a command that a user could type. The demo runs them in order, sends a few test images to the
server and shows the answers. A second run reuses the model of the first.
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
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypeVar

import httpx
from rich.console import Console
from rich.table import Table

from app.client import Client, Inspection
from examples.contact_sheet import render_contact_sheet
from examples.processes import FLOWGAUGE, INTERRUPTED, run, serving, wait_until_ready
from flows.fastflow.imaging import decoder
from flows.fastflow.imaging.heatmap import encode_png
from training.data import elpv, layout
from training.data.sample import DatasetError, Sample

HOST = "127.0.0.1"
STEPS = 6
MODELS = Path("models")
OUT = Path("demo")

Item = TypeVar("Item")
Inspected = tuple[Sample, Inspection]
console = Console(highlight=False, soft_wrap=True)


class DemoError(ValueError):
    """The demo cannot continue; the message says what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return the exit code: 0, 1 after an error, 130 after Ctrl-C."""
    options = _parse(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        demonstrate(options)
    except KeyboardInterrupt:
        console.print("\ninterrupted; `make demo` continues from the finished steps")
        return INTERRUPTED
    except (ValueError, OSError, httpx.HTTPError) as error:
        console.print(f"error: {error}", style="red", markup=False)
        return 1
    return 0


def demonstrate(options: argparse.Namespace) -> None:
    """Run the six steps."""
    begun = time.monotonic()
    require_free_port(options.port)
    with step(1, "get real images"):
        data, category = options.data, options.category
        if data is None:
            data, category = Path("datasets/elpv"), category or elpv.CATEGORY
            run("data", "elpv", "--out", str(data))
        chosen = choose_samples(find_test_samples(data, category))
    arguments = ("--data", str(data), "--category", category, "--models", str(MODELS))
    with step(2, "train, calibrate and publish a model"):
        run("train", *arguments, "--resume")
    with step(3, "evaluate it on images it has never seen"):
        run("evaluate", *arguments)
    url = f"http://{HOST}:{options.port}"
    with serving("--models", str(MODELS), "--host", HOST, "--port", str(options.port)) as server:
        with step(4, "serve"):
            wait_until_ready(url, server)
        with step(5, f"inspect {len(chosen)} test images over HTTP"):
            inspected = inspect(url, category, chosen)
        with step(6, "draw heatmaps"):
            write_images(inspected)
        console.print(f"[bold]all steps took {time.monotonic() - begun:.0f} s[/]\n")
        if options.serve == "1":
            console.print("[bold]what to try next, in another terminal[/]")
            print_commands(url, category, chosen[-1].path)
            console.print(f"  {url}/ in a browser\n\nserving on {url}; Ctrl-C stops it")
            _wait_for_ctrl_c(server)
    console.print("the server has stopped")
    if options.serve == "0":
        console.print("[bold]what to try next, with the server started again[/]")
        again = [*FLOWGAUGE, "serve", "--models", str(MODELS.resolve()), "--port", str(options.port)]
        console.print(f"  {shlex.join(again)}", markup=False)
        print_commands(url, category, chosen[-1].path)


@contextmanager
def step(number: int, title: str) -> Iterator[None]:
    """Print a step's title and, at its end, how long it took."""
    console.rule(f"[bold]{number}/{STEPS} {title}", align="left")
    begun = time.monotonic()
    yield
    console.print(f"step {number} took {time.monotonic() - begun:.1f} s\n", style="dim")


def require_free_port(port: int) -> None:
    """Fail before the training if another process uses the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise DemoError(
                f"port {port} of {HOST} is not available ({error}); choose another: make demo PORT=8001"
            ) from error


def find_test_samples(data: Path, category: str | None) -> list[Sample]:
    """Check the layout before anything is computed, and return the test images."""
    if not category and data.is_dir():
        found = ", ".join(layout.categories(data)) or "none"
        raise DatasetError(f"no category given; choose one of {data}: CATEGORY=...; found: {found}")
    layout.train_images(data, category or "")
    return layout.test_samples(data, category or "")


def choose_samples(samples: Sequence[Sample], count: int = 3) -> list[Sample]:
    """Choose `count` good and `count` defective images, spread over the kinds of defect."""
    good = [s for s in samples if s.defect is None]
    kinds: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.defect is not None:
            kinds.setdefault(sample.defect, []).append(sample)
    if not good or not kinds:
        raise DatasetError(
            f"the test set has {len(good)} good images and {len(kinds)} kinds of defect; the demo needs "
            "both: test/good and test/<defect>"
        )
    chosen = _spread(good, count)
    if len(kinds) < count:
        return chosen + _spread([s for kind in kinds.values() for s in kind], count)
    return chosen + [_spread(kind, 1)[0] for kind in _spread(list(kinds.values()), count)]


def inspect(url: str, category: str, samples: Sequence[Sample]) -> list[Inspected]:
    """Inspect each image on the server and print the decisions."""
    table = Table("image", "truth", "score", "decision", "p-value")
    with Client(url) as client:
        answers = [client.inspect(category, one.path, inline=["overlay", "heatmap"]) for one in samples]
    for sample, answer in zip(samples, answers, strict=True):
        colour = "red" if answer.decision == "REJECT" else "green"
        decision = f"[{colour}]{answer.decision}[/]"
        truth = sample.defect or "good"
        table.add_row(sample.path.name, truth, f"{answer.score:.4g}", decision, f"{answer.p_value:.4g}")
    console.print(table)
    return list(zip(samples, answers, strict=True))


def write_images(inspected: Sequence[Inspected]) -> None:
    """Write overlays, heatmaps and the contact sheet; those of an earlier run are deleted."""
    sheet = OUT / "contact_sheet.png"
    rows = []
    for folder in ("overlays", "heatmaps"):
        shutil.rmtree(OUT / folder, ignore_errors=True)
        (OUT / folder).mkdir(parents=True)
    for sample, answer in inspected:
        truth, stem, inline = sample.defect or "good", sample.path.stem, answer.inline or {}
        overlay, heatmap = b64decode(inline["overlay"]), b64decode(inline["heatmap"])
        (OUT / "overlays" / f"{truth}_{stem}.png").write_bytes(overlay)
        (OUT / "heatmaps" / f"{truth}_{stem}.png").write_bytes(heatmap)
        caption = f"{truth} {stem}: {answer.decision}, score {answer.score:.4g}, p {answer.p_value:.4g}"
        rows.append(
            (
                caption,
                decoder.read_image(sample.path),
                decoder.decode_image(heatmap),
                decoder.decode_image(overlay),
            )
        )
    sheet.write_bytes(encode_png(render_contact_sheet(rows)))
    console.print(f"input, heatmap and overlay side by side: {sheet.resolve()}")
    console.print(f"one by one: {(OUT / 'overlays').resolve()} and {(OUT / 'heatmaps').resolve()}")


def print_commands(url: str, category: str, image: Path) -> None:
    """Print commands to try from any folder while the server runs."""
    predict, file = f"{url}/v1/models/{category}/predict", f"file=@{image.resolve()}"
    for command in (
        ["curl", "-F", file, predict],
        ["curl", "-H", "Accept: image/png", "-F", file, "-o", "overlay.png", predict],
        ["curl", f"{url}/v1/models"],
    ):
        console.print(f"  {shlex.join(command)}", markup=False)


def _wait_for_ctrl_c(server: subprocess.Popen[bytes]) -> None:
    try:
        server.wait()
    except KeyboardInterrupt:
        console.print()  # the usual way to stop the server, not an interruption


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Run the demo; `make demo` passes its variables as these options."
    )
    parser.add_argument("--data", type=Path, help="your images, in a layout that flowgauge train accepts")
    parser.add_argument("--category", help="a folder of the data")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--serve", choices=("0", "1"), default="1", help="1: keep serving until Ctrl-C; 0: end"
    )
    return parser.parse_args(arguments)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _spread(items: Sequence[Item], count: int) -> list[Item]:
    """Return up to `count` items at even distances, half of that from the ends."""
    count = min(count, len(items))
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]


if __name__ == "__main__":
    sys.exit(main())
