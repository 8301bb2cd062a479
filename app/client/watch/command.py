"""`flowgauge watch`: inspect the images that a camera writes into a folder."""

import io
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ...schemas.predict import Inspection
from ...schemas.texts import text_fault
from ..connection import AddressError
from ..errors import AccessError, FlowGaugeError, NotFoundError
from ..sync import Client
from .folder import PATTERNS, printable
from .job import WatchJob
from .outcome import ImageOutcome
from .watcher import Watcher

# Of the client: the watcher retries by itself, and can be stopped meanwhile.
_PATIENCE_SECONDS = 3.0


FolderArgument = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="Folder that the camera writes to; subfolders count too.")
]
Category = Annotated[str, typer.Option(help="Category, e.g. bottle.")]
Url = Annotated[str, typer.Option(help="Address of the server.")]
Key = Annotated[str | None, typer.Option(envvar="FLOWGAUGE_KEY", help="API key with the role line.")]
Authority = Annotated[
    Path | None, typer.Option(help="PEM file of the authority that signed the server's certificate.")
]
Station = Annotated[
    str | None, typer.Option(help="Station of the images; selects its calibration and region of interest.")
]
Part = Annotated[
    str | None,
    typer.Option(
        help="Regular expression, searched in the file's name, then in the path below FOLDER. Its first "
        "group is the part's id."
    ),
]
MoveTo = Annotated[
    Path | None, typer.Option(help="Move inspected images there; images that fail go to its folder failed.")
]
Patterns = Annotated[
    list[str] | None,
    typer.Option(help="File names to inspect, without folders. May be repeated. [default: images]"),
]
Settle = Annotated[
    float, typer.Option(help="Seconds without a change after which a file is complete.", min=0.01)
]
Overlay = Annotated[bool, typer.Option("--overlay", help="Also write the image with its heatmap.")]
Once = Annotated[bool, typer.Option("--once", help="Stop when every image in the folder is inspected.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]


def watch(
    folder: FolderArgument,
    category: Category,
    url: Url = "http://127.0.0.1:8000",
    key: Key = None,
    ca: Authority = None,
    station: Station = None,
    part: Part = None,
    move_to: MoveTo = None,
    pattern: Patterns = None,
    settle: Settle = 0.5,
    overlay: Overlay = False,
    once: Once = False,
    as_json: AsJson = False,
) -> None:
    """Inspect every image that appears in a folder exactly once, also across crashes of watch or server.

    The answer to part.png, or the reason of its failure, goes to part.png.json. Images wait while the server
    is away. Names that begin with a dot are ignored: let the camera write such a name and rename. Ctrl-C or
    SIGTERM stops after the current image.

    Exit code 1: an image failed, with --once.
    """
    _require(folder.is_dir(), f"there is no folder {folder}", "FOLDER")
    fault = text_fault(station or "")
    _require(not fault, f"{station!r} {fault}", "--station")
    _require(
        move_to is None or not move_to.resolve().is_relative_to(folder.resolve()),
        f"{move_to} is in {folder}, so what is moved there would be found again",
        "--move-to",
    )
    for text in pattern or ():
        advice = "has a slash, but patterns match file names: to look in one folder, watch FOLDER/sub"
        _require("/" not in text and os.sep not in text, f"{text!r} {advice}", "--pattern")
    expression, patterns = _expression(part), tuple(pattern or PATTERNS)
    job = WatchJob(folder, category, station, expression, move_to, patterns, settle, overlay)
    try:
        client = Client(url, key, ca=ca, patience=_PATIENCE_SECONDS)
    except AddressError as error:
        raise typer.BadParameter(str(error), param_hint=f"--{error.what}") from error
    with client, _stopped_by_signals() as stop:
        try:
            client.model(category)
        except (NotFoundError, AccessError) as error:
            option = "--category" if isinstance(error, NotFoundError) else "--key"
            raise typer.BadParameter(str(error), param_hint=option) from error
        except FlowGaugeError as error:
            if once:
                raise
            _say(str(error))
        watcher = Watcher(client, job, _printer(as_json, has_part=part is not None), _say)
        complete = watcher.run(stop, once=once)
    if once and not complete:
        raise typer.Exit(1)


def _require(condition: bool, message: str, option: str) -> None:
    if not condition:
        raise typer.BadParameter(message, param_hint=option)


def _expression(part: str | None) -> re.Pattern[str] | None:
    if part is None:
        return None
    try:
        expression = re.compile(part)
    except re.error as error:
        raise typer.BadParameter(f"{part!r}: {error}", param_hint="--part") from error
    _require(expression.groups > 0, f"{part!r} has no group in parentheses", "--part")
    return expression


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(reason: str) -> None:
    typer.secho(f"waiting: {reason}", fg="yellow", err=True)


def _printer(as_json: bool, *, has_part: bool) -> Callable[[ImageOutcome], None]:
    """Make a function that prints a line per image, and warns once of an image without a part."""
    # A file's name may have letters that the output's encoding does not have.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    warns = has_part

    def report(outcome: ImageOutcome) -> None:
        nonlocal warns
        name, result = printable(outcome.file.name), outcome.result
        if warns and isinstance(result, Inspection) and result.part_id is None:
            warns = False
            warning = "--part finds no id in it; it is inspected without a part, as are others like it"
            typer.secho(f"warning: {name}: {warning}", fg="yellow", err=True)
        if isinstance(result, Inspection):
            line = f"{name}: {result.decision}, score {result.score:.4f}"
            fields = {"inspection_id", "part_id", "decision", "score", "p_value"}
            values = result.model_dump(include=fields)
        else:
            line, values = f"{name}: set aside: {result.detail}", {"error": result.detail}
        if as_json:
            typer.echo(json.dumps({"file": name, **values}))
        else:
            typer.echo(line, err=not isinstance(result, Inspection))

    return report


def main() -> None:
    """Entry point of the command flowgauge-watch of the package flowgauge-client."""
    try:
        typer.run(watch)
    except (FlowGaugeError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
