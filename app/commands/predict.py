"""`flowgauge predict`: inspect a file or a folder, here or by a server."""

import base64
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from app.commands import remote
from app.schemas.texts import text_fault

# In which a server that is busy is asked again.
_PATIENCE_SECONDS: Final = 5.0
# Images in a row for which it was away, after which no other is tried.
_AWAY: Final = 3


@dataclass(frozen=True)
class Finding:
    """What was said of one image; the overlay is the bytes of a PNG, if one was asked for."""

    score: float
    decision: str
    p_value: float
    version: str
    overlay: bytes | None


class AwayError(ValueError):
    """The server does not answer, or takes nothing, or nothing by this key: no other would be inspected."""


class NotInspectedError(ValueError):
    """An image could not be inspected, or none because no server answers; the message is for people."""


Inspect = Callable[[bytes], Finding]


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
    from flows.fastflow.images import read_bytes

    if url is None and no_store:
        raise typer.BadParameter("is for --url; here nothing is kept anyway", param_hint="--no-store")
    if station is not None and (fault := text_fault(station)):
        raise typer.BadParameter(f"{station!r} {fault}", param_hint="--station")
    files, closed = _files(path, out)
    errors = Console(stderr=True)
    findings: dict[str, Finding] = {}
    failures = dict(closed)
    unwritten: dict[str, str] = {}  # inspected, but without an overlay
    drawn = out is not None
    if url is None:
        connection = _local(models, category, version, station, threads, device, precision, drawn)
    else:
        connection = _remote(url, key, ca, category, version, station, drawn, not no_store)
    away = 0  # in a row
    progress = Progress(console=errors, transient=True, disable=as_json)
    with connection as inspect, progress:
        if as_json:
            for name, reason in closed.items():
                typer.echo(_json_line(name, None, reason, None))
        try:
            for name, file in progress.track(files.items(), description="Inspecting"):
                try:
                    found = inspect(read_bytes(file))
                except OSError as error:
                    failures[name] = error.strerror or str(error)
                except NotInspectedError as error:
                    failures[name] = str(error)
                    away = 0
                except AwayError as error:
                    failures[name] = str(error)
                    away += 1
                else:
                    away = 0
                    if out is not None and found.overlay is not None:
                        failed = _write_overlay(out / f"{name}.overlay.png", found.overlay)
                        unwritten |= {} if failed is None else {name: failed}
                    # Overlays of a large folder would fill the memory.
                    findings[name] = replace(found, overlay=None)
                if as_json:
                    typer.echo(_json_line(name, findings.get(name), failures.get(name), unwritten.get(name)))
                if away == _AWAY:
                    break
        except KeyboardInterrupt:
            if not as_json:  # what was found is worth something
                _tell(findings, failures | unwritten)
            raise
    untried = len(files) + len(closed) - len(findings) - len(failures)
    if not as_json:
        _tell(findings, failures | unwritten)
    if untried:
        typer.secho(f"{untried} more were not tried, as none would be inspected now", fg="red", err=True)
    if failures:
        typer.secho(f"{len(failures)} of {len(files) + len(closed)} not inspected", fg="red", err=True)
    if unwritten:
        typer.secho(f"{len(unwritten)} of {len(files)} without their overlay", fg="red", err=True)
    if failures or unwritten:
        raise typer.Exit(1)


def _tell(findings: Mapping[str, Finding], reasons: Mapping[str, str]) -> None:
    Console().print(_table(findings))
    for name, reason in reasons.items():
        typer.secho(f"{name}: {reason}", fg="red", err=True)


def _write_overlay(path: Path, overlay: bytes) -> str | None:
    """Write an overlay; the answer is why it could not be, or None."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(overlay)
    except OSError as error:
        return f"the overlay could not be written: {error.strerror or error}"
    return None


def _files(path: Path, out: Path | None) -> tuple[dict[str, Path], dict[str, str]]:
    """The images by the name they are reported under, and the folders that cannot be read, and why.

    What lies in a folder of overlays within the images' own is an earlier run's, and no image.
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


@contextmanager
def _local(
    models: Path,
    category: str,
    version: str | None,
    station: str | None,
    threads: int | None,
    device: str,
    precision: str,
    drawn: bool,
) -> Iterator[Inspect]:
    # Here and not above: torch takes seconds, which --help and --url should not.
    import torch

    from app import verdict
    from app.calibrations import CalibrationFiles
    from app.category_settings import SettingsFiles
    from app.problems import Problem
    from flows.fastflow import heatmap, images, models_folder
    from flows.fastflow.detector import Detector
    from flows.fastflow.manifest import PRECISIONS

    try:
        folder = models_folder.resolve(models, category, version)
    except models_folder.UnknownModelError as error:
        raise typer.BadParameter(str(error), param_hint=_asked_for(version)) from error
    engine = next((known for known in PRECISIONS if known == precision), None)
    if engine is None:
        raise typer.BadParameter(f"{precision!r}: use {' or '.join(PRECISIONS)}", param_hint="--precision")
    if threads is not None:
        torch.set_num_threads(threads)
    calibrations = CalibrationFiles(models)
    try:
        detector = Detector.load(
            folder, device=device, precision=engine, fallback=calibrations.instead(folder, engine)
        )
        settings = SettingsFiles(models).get(category)
        thresholds = verdict.thresholds(calibrations.get(detector, station), settings)
    except Problem as problem:
        raise NotInspectedError(problem.detail) from problem
    calibrator = thresholds.calibrator

    def inspect(data: bytes) -> Finding:
        try:
            image = images.decode(data, images.FILE_LIMITS, detector.manifest.sample_bits)
        except images.ImageError as error:
            raise NotInspectedError(str(error)) from error
        prepared = detector.prepare(image)
        try:
            region = settings.region_mask(station, prepared.layout.size)
            if region is not None:
                verdict.expect_detectable(detector, region)
        except Problem as problem:
            raise NotInspectedError(problem.detail) from problem
        [prediction] = detector.predict_prepared([prepared], [region])
        overlay = None
        if drawn:
            picture = heatmap.overlay(image, prediction.score_map, calibrator.colour_scale)
            overlay = heatmap.encode_png(picture)
        score = calibrator.score(prediction)
        used = detector.manifest.version
        return Finding(score, thresholds.decide(score), calibrator.p_value(score), used, overlay)

    yield inspect


@contextmanager
def _remote(
    url: str,
    key: str | None,
    ca: Path | None,
    category: str,
    version: str | None,
    station: str | None,
    drawn: bool,
    store: bool,
) -> Iterator[Inspect]:
    from app import client as clients

    try:
        client = clients.Client(url, key, ca=ca, patience=_PATIENCE_SECONDS)
    except clients.AddressError as error:
        raise typer.BadParameter(str(error), param_hint=f"--{error.what}") from error
    with client:
        try:
            there = [known.version for known in client.model(category).versions]
        except clients.UnknownModelError as error:
            raise typer.BadParameter(str(error), param_hint="--category") from error
        except (clients.AccessError, clients.RateLimitedError) as error:
            raise typer.BadParameter(str(error), param_hint="--key") from error
        except clients.UnreachableError as error:
            raise NotInspectedError(f"{error}. Start a server there: flowgauge serve") from error
        except clients.UnexpectedAnswerError as error:
            if _is_away(error):
                raise NotInspectedError(str(error)) from error
            raise typer.BadParameter(f"{url} is no FlowGauge server: {error}", param_hint="--url") from error
        if version is not None and version not in there:
            raise typer.BadParameter(
                f"{category!r} has no version {version!r}; there are: {', '.join(there)}",
                param_hint=_asked_for(version),
            )

        def inspect(data: bytes) -> Finding:
            inline: list[clients.Picture] = ["overlay"] if drawn else []
            try:
                found = client.inspect(
                    category, data, version=version, station=station, inline=inline, store=store
                )
            except clients.FlowGaugeError as error:
                raise (AwayError if _is_away(error) else NotInspectedError)(str(error)) from error
            overlay = base64.b64decode(found.inline["overlay"]) if found.inline else None
            return Finding(found.score, found.decision, found.p_value, found.model.version, overlay)

        yield inspect


def _is_away(error: Exception) -> bool:
    """Whether others would not be inspected either; one that is merely busy has more time for the next."""
    from app import client as clients

    if isinstance(error, clients.UnexpectedAnswerError):
        return error.server_is_away
    return isinstance(
        error,
        clients.UnreachableError
        | clients.AccessError
        | clients.DrainingError
        | clients.HistoryUnavailableError,
    )


def _asked_for(version: str | None) -> str:
    return "--category" if version is None else "--version"


def _json_line(name: str, finding: Finding | None, failure: str | None, unwritten: str | None) -> str:
    if failure is not None or finding is None:
        return json.dumps({"file": name, "error": failure})
    return json.dumps(
        {
            "file": name,
            "score": finding.score,
            "decision": finding.decision,
            "p_value": finding.p_value,
            "version": finding.version,
            **({} if unwritten is None else {"overlay_error": unwritten}),
        }
    )


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
