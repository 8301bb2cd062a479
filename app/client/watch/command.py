"""`flowgauge watch`: inspect what a camera writes into a folder."""

import io
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from ...schemas.texts import text_fault
from ..connection import AddressError
from ..errors import AccessError, FlowGaugeError, UnknownModelError
from ..sync import Client
from .folder import PATTERNS, printable
from .job import Job
from .outcome import Outcome
from .watcher import Watcher

# Of the client; what takes longer, the watcher tries again by itself, and can be told to stop meanwhile.
_PATIENCE_SECONDS = 3.0


def watch(
    folder: Annotated[Path, typer.Argument(help="Where the camera writes; folders below it count too.")],
    category: Annotated[str, typer.Option(help="Which model, e.g. bottle.")],
    url: Annotated[str, typer.Option(help="The server.")] = "http://127.0.0.1:8000",
    key: Annotated[
        str | None, typer.Option(envvar="FLOWGAUGE_KEY", help="A key of that server, of the role line.")
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(help="PEM file of the authority that signed its certificate.")
    ] = None,
    station: Annotated[
        str | None, typer.Option(help="Where the pictures come from: its calibration and region hold.")
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            help="Regular expression; its first group is the part's id. It is searched in the file's name; "
            "where it does not match, in the path below FOLDER, with slashes."
        ),
    ] = None,
    move_to: Annotated[
        Path | None,
        typer.Option(help="Move pictures there when they are inspected, bad ones into its folder failed."),
    ] = None,
    pattern: Annotated[
        list[str] | None,
        typer.Option(help="Names to look for, without folders; may be repeated. [default: pictures]"),
    ] = None,
    settle: Annotated[
        float, typer.Option(help="Seconds without a change after which a file is whole.", min=0.01)
    ] = 0.5,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Write the picture with its heatmap over it too.")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="End when all that is there is inspected.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object per line.")] = False,
) -> None:
    """Inspect every picture that appears in a folder, once, whatever is killed meanwhile.

    Beside part.png comes part.png.json with the whole answer, or with the reason why it could not be
    inspected. While the server is away, pictures wait. Names that begin with a dot are passed over: a camera
    that can should write under such a name and rename.

    Ctrl-C or SIGTERM ends it after the picture at hand.

    Exit codes: 0 when stopped, or with --once when every picture was inspected; 1 with --once when one could
    not be; 2 when what was asked for is wrong.
    """
    job = _job(folder, category, station, part, move_to, pattern, settle, overlay)
    printer = _Printer(as_json)
    stop = threading.Event()
    try:
        client = Client(url, key, ca=ca, patience=_PATIENCE_SECONDS)
    except AddressError as error:
        raise typer.BadParameter(str(error), param_hint=f"--{error.what}") from error
    with client, _stopped_by_signals(stop):
        try:
            client.model(category)
        except UnknownModelError as error:
            raise typer.BadParameter(str(error), param_hint="--category") from error
        except AccessError as error:
            raise typer.BadParameter(str(error), param_hint="--key") from error
        except FlowGaugeError as error:
            if once:
                raise
            printer.waits(str(error))
        watcher = Watcher(client, job, printer)
        complete = watcher.run(stop, once=once)
    if once and (not complete or watcher.tally.set_aside):
        raise typer.Exit(1)


def _job(
    folder: Path,
    category: str,
    station: str | None,
    part: str | None,
    move_to: Path | None,
    pattern: list[str] | None,
    settle: float,
    overlay: bool,
) -> Job:
    if not folder.is_dir():
        raise typer.BadParameter(f"there is no folder {folder}", param_hint="FOLDER")
    if station is not None and (fault := text_fault(station)):
        raise typer.BadParameter(f"{station!r} {fault}", param_hint="--station")
    try:
        expression = None if part is None else re.compile(part)
    except re.error as error:
        raise typer.BadParameter(f"{part!r}: {error}", param_hint="--part") from error
    if expression is not None and not expression.groups:
        raise typer.BadParameter(f"{part!r} has no group in parentheses", param_hint="--part")
    if move_to is not None and move_to.resolve().is_relative_to(folder.resolve()):
        raise typer.BadParameter(
            f"{move_to} is in {folder}, so what is moved there would be found again", param_hint="--move-to"
        )
    patterns = PATTERNS if not pattern else tuple(pattern)
    for one in patterns:
        if "/" in one or os.sep in one:
            raise typer.BadParameter(
                f"{one!r} has a slash, and patterns are of names: to look in one folder, watch FOLDER/sub",
                param_hint="--pattern",
            )
    return Job(folder, category, station, expression, move_to, patterns, settle, overlay)


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    def on_signal(number: int, frame: FrameType | None) -> None:
        del number, frame
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Printer:
    """Prints a line for every picture, and to standard error why nothing goes on."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        # A file's name may have letters that the terminal's or a pipe's encoding does not.
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")

    def dealt_with(self, outcome: Outcome) -> None:
        name, inspection, problem = printable(outcome.file.name), outcome.inspection, outcome.problem
        if self._as_json:
            told: dict[str, object] = {"file": name}
            if inspection is not None:
                told |= inspection.model_dump(
                    include={"inspection_id", "part_id", "decision", "score", "p_value"}
                )
            if problem is not None:
                told["error"] = problem.detail
            typer.echo(json.dumps(told))
        elif inspection is not None:
            typer.echo(f"{name}: {inspection.decision}, score {inspection.score:.4f}")
        elif problem is not None:
            typer.secho(f"{name}: set aside: {problem.detail}", fg="red", err=True)

    def waits(self, reason: str) -> None:
        typer.secho(f"waiting: {reason}", fg="yellow", err=True)

    def warns(self, reason: str) -> None:
        typer.secho(f"warning: {reason}", fg="yellow", err=True)


def main() -> None:
    """Entry point of the command flowgauge-watch of the package flowgauge-client."""
    try:
        typer.run(watch)
    except (FlowGaugeError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
