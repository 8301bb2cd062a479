"""`flowgauge predict`: inspect a file or a folder, here or on a server."""

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
    path: Annotated[Path, typer.Argument(help="Image, or folder with images at any depth.")],
    category: Annotated[str, typer.Option(help="Category of the model, e.g. bottle.")],
    version: Annotated[
        str | None, typer.Option(help="Version of the model; by default the active one.")
    ] = None,
    station: Annotated[
        str | None, typer.Option(help="Use the calibration and the region of interest of this station.")
    ] = None,
    models: Annotated[
        Path, typer.Option(envvar="FLOWGAUGE_MODELS", help="Folder of the published models.")
    ] = Path("models"),
    threads: Annotated[
        int | None,
        typer.Option(help="CPU threads; not with --url.", min=1, show_default="torch's choice"),
    ] = None,
    device: Annotated[
        str,
        typer.Option(envvar="FLOWGAUGE_DEVICE", help="Device: auto, cpu, cuda or cuda:N; not with --url."),
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            envvar="FLOWGAUGE_PRECISION", help="float32, bfloat16 or openvino-bfloat16; not with --url."
        ),
    ] = "float32",
    url: Annotated[
        str | None,
        typer.Option(help="Inspect on this server, e.g. http://127.0.0.1:8000."),
    ] = None,
    no_store: Annotated[
        bool, typer.Option("--no-store", help="Store nothing in the server's history; needs --url.")
    ] = False,
    key: remote.Key = None,
    ca: remote.Authority = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for overlays, the images with their heatmaps.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """Inspect images: score, decision and p-value of each.

    A high score means an anomaly. The p-value is the share of good parts that score at least as high. With
    --url the server stores images and answers in its history, unless --no-store is set. If the server goes
    away, the remaining images are skipped.

    Exit codes: 0 if every image was inspected, whatever the decisions. 1 if an image, a folder, an overlay,
    the model or the server failed. 2 if an option is wrong.
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
    from flows.fastflow.imaging.decoder import read_image_bytes

    try:
        data = read_image_bytes(file)
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
    from flows.fastflow.files.plain_files import escape_name
    from flows.fastflow.imaging.image_files import find_image_files
    from flows.fastflow.imaging.image_formats import IMAGE_SUFFIXES

    if path.is_file():
        return {escape_name(path.name): path}
    if not path.is_dir():
        raise typer.BadParameter(f"there is no file or folder {path}", param_hint="PATH")
    found = find_image_files(path)
    overlays = None if out is None else out.resolve()
    if overlays is not None and path.resolve() in overlays.parents:
        found = {name: file for name, file in found.items() if not file.resolve().is_relative_to(overlays)}
    if not found:
        kinds = " ".join(sorted(IMAGE_SUFFIXES))
        raise typer.BadParameter(f"{path} holds no images ({kinds})", param_hint="PATH")
    return {escape_name(name): file for name, file in found.items()}


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
