"""`flowgauge predict`: inspect a file or a folder, here or by a server."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from app.commands import remote
from app.commands.predict_sources import (
    AwayError,
    Finding,
    Inspect,
    NotInspectedError,
    inspect_here,
    inspect_remotely,
)
from app.schemas.texts import text_fault

# Images in a row for which it was away, after which no other is tried.
_AWAY: Final = 3


def predict(
    path: Annotated[Path, typer.Argument(help="An image, or a folder with images at any depth.")],
    category: Annotated[str, typer.Option(help="Which model, e.g. bottle.")],
    version: Annotated[str | None, typer.Option(help="A version. Without it, the active one.")] = None,
    station: Annotated[
        str | None, typer.Option(help="As if the images came from there: its calibration and region hold.")
    ] = None,
    models: Annotated[
        Path, typer.Option(envvar="FLOWGAUGE_MODELS", help="Folder of the published models.")
    ] = Path("models"),
    threads: Annotated[
        int | None,
        typer.Option(help="CPU threads; a server has its own.", min=1, show_default="torch's choice"),
    ] = None,
    device: Annotated[
        str, typer.Option(envvar="FLOWGAUGE_DEVICE", help="auto, cpu, cuda or cuda:N; a server has its own.")
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            envvar="FLOWGAUGE_PRECISION", help="float32, bfloat16 or openvino-bfloat16; a server has its own."
        ),
    ] = "float32",
    url: Annotated[
        str | None,
        typer.Option(help="Ask the server there instead, e.g. http://127.0.0.1:8000."),
    ] = None,
    no_store: Annotated[
        bool, typer.Option("--no-store", help="With --url: the server keeps nothing in its history.")
    ] = False,
    key: remote.Key = None,
    ca: remote.Authority = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for overlays: the image with its heatmap over it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object per line.")] = False,
) -> None:
    """Inspect images: score, decision and p-value of each, by what is set for the category.

    A high score is an anomaly; the p-value is the share of good parts that score at least as high. With --url
    the server keeps every image and its answer, as if a line had sent it; --no-store has it keep nothing.

    Where the server is away, or takes nothing, for three images in a row the others are not tried.

    Exit codes: 0 when every image was inspected, whatever the decisions; 1 when one could not be, or a
    folder could not be read, or an overlay could not be written (the others are inspected all the same), or
    the model or the server could not be used; 2 when what was asked for is wrong.
    """
    if url is None and no_store:
        raise typer.BadParameter("is for --url; here nothing is kept anyway", param_hint="--no-store")
    if station is not None and (fault := text_fault(station)):
        raise typer.BadParameter(f"{station!r} {fault}", param_hint="--station")
    files, unreadable = _files(path, out)
    drawn = out is not None
    if url is None:
        connection = inspect_here(models, category, version, station, threads, device, precision, drawn)
    else:
        connection = inspect_remotely(url, key, ca, category, version, station, drawn, not no_store)
    report = _Report(as_json, unreadable, len(files))
    progress = Progress(console=Console(stderr=True), transient=True, disable=as_json)
    with connection as inspect, progress:
        report.begin()
        try:
            for name, file in progress.track(files.items(), description="Inspecting"):
                report.add(name, inspect, file, None if out is None else out / f"{name}.overlay.png")
                if report.away == _AWAY:
                    break
        except KeyboardInterrupt:
            report.print_table()  # what was found is worth something
            raise
    report.print_table()
    if not report.summarise():
        raise typer.Exit(1)


class _Report:
    """What was said of the images, and why some were not inspected or have no overlay.

    Args:
        as_json: print each image at once as a line of JSON; otherwise `print_table` prints all.
        unreadable: folders that cannot be read, and why.
        images: how many are to be inspected.

    Attributes:
        away: images in a row for which the server was away.
    """

    def __init__(self, as_json: bool, unreadable: Mapping[str, str], images: int) -> None:
        self._as_json = as_json
        self._images = images
        self._unreadable = unreadable
        self._findings: dict[str, Finding] = {}
        self._failures = dict(unreadable)
        self._unwritten: dict[str, str] = {}  # inspected, but without an overlay
        self.away = 0

    def begin(self) -> None:
        """Print the folders that cannot be read."""
        for name in self._unreadable:
            self._print_line(name)

    def add(self, name: str, inspect: Inspect, file: Path, overlay: Path | None) -> None:
        """Inspect an image and write its overlay."""
        from flows.fastflow.images import read_bytes

        try:
            found = inspect(read_bytes(file))
        except OSError as error:
            self._failures[name] = error.strerror or str(error)
        except AwayError as error:
            self._failures[name] = str(error)
            self.away += 1
        except NotInspectedError as error:
            self._failures[name] = str(error)
            self.away = 0
        else:
            self.away = 0
            if overlay is not None and found.overlay is not None:
                failed = _write_overlay(overlay, found.overlay)
                self._unwritten |= {} if failed is None else {name: failed}
            # Overlays of a large folder would fill the memory.
            self._findings[name] = replace(found, overlay=None)
        self._print_line(name)

    def print_table(self) -> None:
        """Print what was found, unless it was printed as JSON."""
        if self._as_json:
            return
        Console().print(_table(self._findings))
        for name, reason in (self._failures | self._unwritten).items():
            typer.secho(f"{name}: {reason}", fg="red", err=True)

    def summarise(self) -> bool:
        """Print how many failed. Returns whether none did."""
        total = self._images + len(self._unreadable)
        untried = total - len(self._findings) - len(self._failures)
        if untried:
            typer.secho(f"{untried} more were not tried, as none would be inspected now", fg="red", err=True)
        if self._failures:
            typer.secho(f"{len(self._failures)} of {total} not inspected", fg="red", err=True)
        if self._unwritten:
            number = len(self._unwritten)
            typer.secho(f"{number} of {self._images} without their overlay", fg="red", err=True)
        return not (self._failures or self._unwritten)

    def _print_line(self, name: str) -> None:
        if not self._as_json:
            return
        line: dict[str, object] = {"file": name}
        if (found := self._findings.get(name)) is None:
            line["error"] = self._failures.get(name)
        else:
            line |= {"score": found.score, "decision": found.decision}
            line |= {"p_value": found.p_value, "version": found.version}
            if name in self._unwritten:
                line["overlay_error"] = self._unwritten[name]
        typer.echo(json.dumps(line))


def _write_overlay(path: Path, overlay: bytes) -> str | None:
    """Write an overlay. Returns why it could not be written, or None."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(overlay)
    except OSError as error:
        return f"the overlay could not be written: {error.strerror or error}"
    return None


def _files(path: Path, out: Path | None) -> tuple[dict[str, Path], dict[str, str]]:
    """Find the images by the name they are reported under, and the folders that cannot be read, and why.

    A folder of overlays within the folder of images is skipped: it is an earlier run's.
    """
    from flows.fastflow.images import IMAGE_SUFFIXES
    from flows.fastflow.picture_files import pictures_below
    from flows.fastflow.plain_files import escaped

    if path.is_file():
        return {escaped(path.name): path}, {}
    if not path.is_dir():
        raise typer.BadParameter(f"there is no file or folder {path}", param_hint="PATH")
    errors: list[OSError] = []
    found = pictures_below(path, errors.append)
    overlays = None if out is None else out.resolve()
    if overlays is not None and path.resolve() in overlays.parents:
        found = {name: file for name, file in found.items() if not file.resolve().is_relative_to(overlays)}
    if not found and errors:
        raise errors[0]
    if not found:
        kinds = " ".join(sorted(IMAGE_SUFFIXES))
        raise typer.BadParameter(f"{path} holds no images ({kinds})", param_hint="PATH")
    closed = {
        escaped(os.path.relpath(error.filename, path)): f"the folder cannot be read: {error.strerror}"
        for error in errors
    }
    return {escaped(name): file for name, file in found.items()}, closed


def _table(findings: Mapping[str, Finding]) -> Table:
    decisions = Counter(finding.decision for finding in findings.values())
    reviewed = f", {decisions['REVIEW']} to be reviewed" if decisions["REVIEW"] else ""
    table = Table(caption=f"{len(findings)} inspected, {decisions['REJECT']} rejected{reviewed}")
    table.add_column("File", overflow="fold")
    table.add_column("Score", justify="right")
    table.add_column("Decision")
    table.add_column("p-value", justify="right")
    for name, finding in findings.items():
        style = {"REJECT": "red", "REVIEW": "yellow"}.get(finding.decision, "green")
        decision = f"[{style}]{finding.decision}[/]"
        table.add_row(Text(name), f"{finding.score:.4f}", decision, f"{finding.p_value:.4f}")
    return table
