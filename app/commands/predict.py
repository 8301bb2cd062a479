"""`flowgauge predict`: inspect a file or a folder, here or by a server."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from app.commands import remote
from app.commands.predict_sources import (
    Finding,
    Inspect,
    NotInspectedError,
    inspect_here,
    inspect_remotely,
)
from app.schemas.texts import text_fault


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

    When the server goes away, or takes nothing, the other images are not tried.

    Exit codes: 0 when every image was inspected, whatever the decisions; 1 when one could not be (the others
    are inspected all the same), or a folder could not be read, an overlay not written, or the model or the
    server not used; 2 when what was asked for is wrong.
    """
    if url is None and no_store:
        raise typer.BadParameter("is for --url; here nothing is kept anyway", param_hint="--no-store")
    if station is not None and (fault := text_fault(station)):
        raise typer.BadParameter(f"{station!r} {fault}", param_hint="--station")
    files = _files(path, out)
    drawn = out is not None
    if url is None:
        connection = inspect_here(models, category, version, station, threads, device, precision, drawn)
    else:
        connection = inspect_remotely(url, key, ca, category, version, station, drawn, not no_store)
    outcomes: dict[str, Finding | str] = {}
    progress = Progress(console=Console(stderr=True), transient=True, disable=as_json)
    with connection as inspect, progress:
        try:
            for name, file in progress.track(files.items(), description="Inspecting"):
                overlay = None if out is None else out / f"{name}.overlay.png"
                outcome, ends = _outcome(inspect, file, overlay)
                outcomes[name] = outcome
                if as_json:
                    told = {"error": outcome} if isinstance(outcome, str) else asdict(outcome)
                    typer.echo(json.dumps({"file": name, **told}))
                if ends:
                    break
        finally:  # also after Ctrl-C or on a full disk: what was found is worth something
            if not as_json:
                _print_table(outcomes)
    if len(outcomes) < len(files):
        untried = len(files) - len(outcomes)
        typer.secho(f"{untried} more were not tried, as none would be inspected now", fg="red", err=True)
    if failed := sum(isinstance(one, str) for one in outcomes.values()):
        typer.secho(f"{failed} of {len(files)} not inspected", fg="red", err=True)
        raise typer.Exit(1)


def _outcome(inspect: Inspect, file: Path, overlay_file: Path | None) -> tuple[Finding | str, bool]:
    """Inspect an image and write its overlay.

    Returns:
        The finding or why there is none, and whether others would fail, too.
    """
    from flows.fastflow.images import read_bytes

    try:
        data = read_bytes(file)
    except OSError as error:
        return error.strerror or str(error), False
    try:
        finding, overlay = inspect(data)
    except NotInspectedError as error:
        return str(error), error.ends
    if overlay_file is not None and overlay is not None:
        overlay_file.parent.mkdir(parents=True, exist_ok=True)
        overlay_file.write_bytes(overlay)
    return finding, False


def _files(path: Path, out: Path | None) -> dict[str, Path]:
    """Find the images by the name they are reported under.

    A folder of overlays within the folder of images is skipped: it is an earlier run's.
    """
    from flows.fastflow.images import IMAGE_SUFFIXES
    from flows.fastflow.picture_files import pictures_below
    from flows.fastflow.plain_files import escaped

    if path.is_file():
        return {escaped(path.name): path}
    if not path.is_dir():
        raise typer.BadParameter(f"there is no file or folder {path}", param_hint="PATH")
    found = pictures_below(path)
    overlays = None if out is None else out.resolve()
    if overlays is not None and path.resolve() in overlays.parents:
        found = {name: file for name, file in found.items() if not file.resolve().is_relative_to(overlays)}
    if not found:
        kinds = " ".join(sorted(IMAGE_SUFFIXES))
        raise typer.BadParameter(f"{path} holds no images ({kinds})", param_hint="PATH")
    return {escaped(name): file for name, file in found.items()}


def _print_table(outcomes: Mapping[str, Finding | str]) -> None:
    findings = {name: one for name, one in outcomes.items() if isinstance(one, Finding)}
    decisions = Counter(finding.decision for finding in findings.values())
    reviewed = f", {decisions['REVIEW']} to be reviewed" if decisions["REVIEW"] else ""
    table = Table(caption=f"{len(findings)} inspected, {decisions['REJECT']} rejected{reviewed}")
    table.add_column("File", overflow="fold")
    for column in ("Score", "Decision", "p-value"):
        table.add_column(column, justify="left" if column == "Decision" else "right")
    for name, finding in findings.items():
        style = {"REJECT": "red", "REVIEW": "yellow"}.get(finding.decision, "green")
        decision = f"[{style}]{finding.decision}[/]"
        table.add_row(Text(name), f"{finding.score:.4f}", decision, f"{finding.p_value:.4f}")
    Console().print(table)
    for name, one in outcomes.items():
        if isinstance(one, str):
            typer.secho(f"{name}: {one}", fg="red", err=True)
