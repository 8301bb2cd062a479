"""`flowgauge predict`: inspect a file or a folder, here or on a server."""

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from app.commands.options import (
    MODELS_FOLDER,
    Authority,
    CategoryOption,
    Key,
    Models,
    VersionOption,
    require_text,
)
from app.commands.predict_sources import (
    Inspect,
    NotInspectedError,
    PredictResult,
    inspect_here,
    inspect_remotely,
)
from flows.fastflow.manifest import Precision

Images = Annotated[Path, typer.Argument(metavar="PATH", help="Image, or folder with images at any depth.")]
Station = Annotated[
    str | None, typer.Option(help="Use the calibration and the region of interest of this station.")
]
Threads = Annotated[
    int | None, typer.Option(help="CPU threads; not with --url.", min=1, show_default="torch's choice")
]
LocalDevice = Annotated[
    str, typer.Option(envvar="FLOWGAUGE_DEVICE", help="auto, cpu, cuda or cuda:N; not with --url.")
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        envvar="FLOWGAUGE_PRECISION", help="float32, bfloat16 or openvino-bfloat16; not with --url."
    ),
]
Url = Annotated[str | None, typer.Option(help="Inspect on this server, e.g. http://127.0.0.1:8000.")]
NoStore = Annotated[
    bool, typer.Option("--no-store", help="Store nothing in the server's history; needs --url.")
]
Out = Annotated[Path | None, typer.Option(help="Folder for overlays, the images with their heatmaps.")]
JsonLines = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]


def predict(
    path: Images,
    category: CategoryOption,
    version: VersionOption = None,
    station: Station = None,
    models: Models = MODELS_FOLDER,
    threads: Threads = None,
    device: LocalDevice = "auto",
    precision: PrecisionOption = "float32",
    url: Url = None,
    no_store: NoStore = False,
    key: Key = None,
    ca: Authority = None,
    out: Out = None,
    as_json: JsonLines = False,
) -> None:
    """Inspect images: score, decision and p-value of each.

    The p-value is the share of good parts that score at least as high. With --url the server stores images
    and answers, unless --no-store is set. If the server goes away, the remaining images are skipped.

    Exit code 0: every image was inspected, whatever the decisions.
    """
    if url is None and no_store:
        raise typer.BadParameter("needs --url; without a server nothing is stored", param_hint="--no-store")
    require_text(station, "--station")
    files = _find_files(path, out)
    drawn = out is not None
    if url is None:
        inspector = inspect_here(models, category, version, station, threads, device, precision, drawn)
    else:
        inspector = inspect_remotely(url, key, ca, category, version, station, drawn, not no_store)
    results = _inspect_files(inspector, files, out, as_json=as_json)
    if skipped := len(files) - len(results):
        typer.secho(f"{skipped} images were skipped: the server cannot inspect them now", fg="red", err=True)
    if failed := sum(isinstance(result, str) for result in results.values()):
        typer.secho(f"{failed} of {len(files)} not inspected", fg="red", err=True)
        raise typer.Exit(1)


def _inspect_files(
    inspector: AbstractContextManager[Inspect], files: Mapping[str, Path], out: Path | None, *, as_json: bool
) -> dict[str, PredictResult | str]:
    """Inspect files in order and print the results. A text instead of a result says why there is none."""
    results: dict[str, PredictResult | str] = {}
    progress = Progress(console=Console(stderr=True), transient=True, disable=as_json)
    with inspector as inspect, progress:
        try:
            for name, file in progress.track(files.items(), description="Inspecting"):
                overlay = None if out is None else out / f"{name}.overlay.png"
                result, ends = _inspect_file(inspect, file, overlay)
                results[name] = result
                if as_json:
                    fields = {"error": result} if isinstance(result, str) else asdict(result)
                    typer.echo(json.dumps({"file": name, **fields}))
                if ends:
                    break
        finally:  # also after Ctrl-C or on a full disk: earlier results stay useful
            if not as_json:
                _print_table(results)
    return results


def _inspect_file(
    inspect: Inspect, file: Path, overlay_file: Path | None
) -> tuple[PredictResult | str, bool]:
    """Inspect an image and write its overlay.

    Returns:
        The result, or the reason of its failure, and True if other images would fail, too.
    """
    from flows.fastflow.imaging.decoder import read_image_bytes

    try:
        data = read_image_bytes(file)
    except OSError as error:
        return error.strerror or str(error), False
    try:
        result, overlay = inspect(data)
    except NotInspectedError as error:
        return str(error), error.ends
    if overlay_file is not None and overlay is not None:
        overlay_file.parent.mkdir(parents=True, exist_ok=True)
        overlay_file.write_bytes(overlay)
    return result, False


def _find_files(path: Path, out: Path | None) -> dict[str, Path]:
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


def _print_table(results: Mapping[str, PredictResult | str]) -> None:
    inspected = {name: result for name, result in results.items() if isinstance(result, PredictResult)}
    decisions = Counter(result.decision for result in inspected.values())
    reviewed = f", {decisions['REVIEW']} to be reviewed" if decisions["REVIEW"] else ""
    table = Table(caption=f"{len(inspected)} inspected, {decisions['REJECT']} rejected{reviewed}")
    table.add_column("File", overflow="fold")
    for column in ("Score", "Decision", "p-value"):
        table.add_column(column, justify="left" if column == "Decision" else "right")
    for name, result in inspected.items():
        style = {"REJECT": "red", "REVIEW": "yellow"}.get(result.decision, "green")
        decision = f"[{style}]{result.decision}[/]"
        table.add_row(Text(name), f"{result.score:.4f}", decision, f"{result.p_value:.4f}")
    Console().print(table)
    for name, outcome in results.items():
        if isinstance(outcome, str):
            typer.secho(f"{name}: {outcome}", fg="red", err=True)
