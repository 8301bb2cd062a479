"""`flowgauge calibrate`: new thresholds from good images of the line, without training."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from app.commands.auditing import audited
from app.schemas.texts import text_fault


def calibrate(
    category: Annotated[str, typer.Option(help="Category of the model, e.g. bottle.")],
    images: Annotated[
        Path,
        typer.Option(help="Folder with images of good parts: not selected, and not used in training."),
    ],
    recursive: Annotated[bool, typer.Option("--recursive", help="Include subfolders.")] = False,
    station: Annotated[str | None, typer.Option(help="Calibrate only this station.")] = None,
    precision: Annotated[
        str,
        typer.Option(envvar="FLOWGAUGE_PRECISION", help="float32, bfloat16 or openvino-bfloat16."),
    ] = "float32",
    reason: Annotated[str, typer.Option(help="Reason for the audit log.")] = "flowgauge calibrate",
    version: Annotated[
        str | None, typer.Option(help="Version of the model; by default the active one.")
    ] = None,
    models: Annotated[
        Path, typer.Option(envvar="FLOWGAUGE_MODELS", help="Folder of the published models.")
    ] = Path("models"),
    threads: Annotated[
        int | None, typer.Option(help="CPU threads.", min=1, show_default="torch's choice")
    ] = None,
    device: Annotated[
        str, typer.Option(envvar="FLOWGAUGE_DEVICE", help="Device: auto, cpu, cuda or cuda:N.")
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Recalibrate a model with good images of the line, without training.

    Rates stay as they are set. Thresholds, p-values and heatmap colours follow from these images, for the
    whole category or for one station, also in a running server. A false-reject rate of 1 % needs 99 images,
    0.1 % needs 999.

    Images that the model was fitted to, copies and unreadable images are refused.
    """
    import torch

    from app.auth.access import COMMAND_LINE
    from app.recalibration.image_folder import FolderError, find_images, measure_images
    from app.recalibration.recalibrate import recalibrate
    from app.registry.calibrations import CalibrationFiles
    from app.registry.category_settings import SettingsFiles
    from app.registry.loader import Loader
    from flows.fastflow.bundle import image_digests, models_folder
    from flows.fastflow.engines.engine import describe_slow_precision
    from flows.fastflow.manifest import PRECISIONS

    engine = next((known for known in PRECISIONS if known == precision), None)
    if engine is None:
        raise typer.BadParameter(f"{precision!r}: use {' or '.join(PRECISIONS)}", param_hint="--precision")
    if not 1 <= len(reason) <= 500 or station == "":
        raise typer.BadParameter("a reason has 1 to 500 characters, the name of a station at least one")
    if station is not None and (fault := text_fault(station)):
        raise typer.BadParameter(f"{station!r} {fault}", param_hint="--station")
    try:
        found = find_images(images, recursive=recursive)
    except FolderError as error:
        raise typer.BadParameter(str(error), param_hint="--images") from error
    if threads is not None:
        torch.set_num_threads(threads)
    folder = models_folder.resolve(models, category, version)
    detector = Loader(models, device, engine).read(folder, uncalibrated=True)
    fitted = image_digests.read_digests(folder, detector.manifest)
    known = {"station": station, "reason": reason, "version": folder.name, "engine": engine}
    with audited("model.calibrate", category, known) as detail:
        measured = measure_images(detector, found, fitted, quiet=as_json)
        change = recalibrate(
            CalibrationFiles(models),
            SettingsFiles(models).get(category),
            *(detector, station, list(measured.values())),
            fitted=fitted,
            by=COMMAND_LINE.actor,
            reason=reason,
        )
        told = {
            "category": category,
            "calibration": change.after.calibrator.identifier,
            "fingerprint": change.after.stored.pictures,
            "before": change.before and change.before.model_dump(),
            "threshold": change.threshold.model_dump(),
            "warnings": [*change.warnings, *filter(None, [describe_slow_precision(engine, detector.device)])],
            "pictures": len(measured),
            "of_parts": len(measured) < len(found.files),
            "parts_file": found.parts_file and str(found.parts_file),
        }
        detail |= told
    if as_json:
        typer.echo(json.dumps({**known, **told}, indent=1))
    else:
        _print({**known, **told}, {name: one.measurement.score for name, one in measured.items()})


def _print(told: Mapping[str, Any], scores: Mapping[str, float]) -> None:
    from flows.fastflow.calibration.conformal import realised_range
    from flows.fastflow.calibration.highest_scores import describe_highest_scoring, highest_scoring

    whose = "all stations" if told["station"] is None else f"station {told['station']}"
    each = ", one of each part" if told["of_parts"] else ""
    typer.echo(
        f"{told['category']}/{told['version']}, {told['engine']}, {whose}: calibrated by {told['pictures']} "
        f"pictures{each} ({told['calibration']})"
    )
    if told["parts_file"] is not None:
        typer.echo(f"which of them show the same part is told by {told['parts_file']}")
    after, before = told["threshold"], told["before"]
    promise = f"on average at most {after['target_fpr']:.2%} of good pictures, certified"
    if not after["certified"]:
        promise = (
            f"asked for at most {after['target_fpr']:.2%} of good pictures; these {told['pictures']} "
            f"can promise only {after['achievable_fpr']:.2%} on average"
        )
    low, high = realised_range(after["n_calibration"], after["target_fpr"])
    promise += f"; by this calibration it is {low:.2%} to {high:.2%} (95 %)"
    moved = (
        "" if before is None else f", {after['reject'] - before['reject']:+.4g} from {before['reject']:.4g}"
    )
    typer.echo(f"rejected above {after['reject']:.4g}{moved}: {promise}")
    if after["review"] is not None and after["review"] < after["reject"]:
        typer.echo(f"to a person above {after['review']:.4g}")
    values = list(scores.values())
    for warning in told["warnings"]:
        typer.secho(f"look: {warning}", fg="yellow", err=True)
    typer.echo(describe_highest_scoring(highest_scoring(list(scores), values), values, after["target_fpr"]))
