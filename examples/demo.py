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
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypeVar

import httpx
from rich.console import Console
from rich.table import Table

from app.client import Client, Inspection
from examples.children import FLOWGAUGE, INTERRUPTED, run, serving, wait_until_ready
from flows.fastflow.imaging import images
from flows.fastflow.imaging.heatmap import contact_sheet, encode_png
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
    """What keeps the demo from going on, and what to do about it."""


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
            hint(url, category, chosen[-1].path)
            console.print(f"  {url}/ in a browser\n\nserving on {url}; Ctrl-C stops it")
            _wait_for_ctrl_c(server)
    console.print("the server has stopped")
    if options.serve == "0":
        console.print("[bold]what to try next, with the server started again[/]")
        again = [*FLOWGAUGE, "serve", "--models", str(MODELS.resolve()), "--port", str(options.port)]
        console.print(f"  {shlex.join(again)}", markup=False)
        hint(url, category, chosen[-1].path)


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


def inspect(url: str, category: str, samples: Sequence[Sample]) -> list[Inspected]:
    """Put each picture to the server and print what it decides."""
    table = Table("picture", "truth", "score", "decision", "p-value")
    with Client(url) as client:
        answers = [client.inspect(category, one.path, inline=["overlay", "heatmap"]) for one in samples]
    for sample, answer in zip(samples, answers, strict=True):
        colour = "red" if answer.decision == "REJECT" else "green"
        decision = f"[{colour}]{answer.decision}[/]"
        truth = sample.defect or "good"
        table.add_row(sample.path.name, truth, f"{answer.score:.4g}", decision, f"{answer.p_value:.4g}")
    console.print(table)
    return list(zip(samples, answers, strict=True))


def show(inspected: Sequence[Inspected]) -> None:
    """Write overlays, heatmaps and the contact sheet, in place of those of an earlier run."""
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
        rows.append((caption, images.read(sample.path), images.decode(heatmap), images.decode(overlay)))
    sheet.write_bytes(encode_png(contact_sheet(rows)))
    console.print(f"input, heatmap and overlay side by side: {sheet.resolve()}")
    console.print(f"one by one: {(OUT / 'overlays').resolve()} and {(OUT / 'heatmaps').resolve()}")


def hint(url: str, category: str, picture: Path) -> None:
    """Print commands that work as they stand, from any folder, while the server runs."""
    predict, file = f"{url}/v1/models/{category}/predict", f"file=@{picture.resolve()}"
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
