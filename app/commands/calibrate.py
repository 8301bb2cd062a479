"""`flowgauge calibrate`: new thresholds from good images of the line, without training."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands.options import (
    MODELS_FOLDER,
    AsJson,
    CategoryOption,
    Device,
    Models,
    ProgressFormat,
    Threads,
    VersionOption,
    require_text,
)
from app.commands.server_database import audited
from flows.fastflow.manifest import Precision

if TYPE_CHECKING:
    from app.recalibration.recalibrate import MeasuredImage
    from flows.fastflow.bundle.image_digests import ImageDigests
    from flows.fastflow.detector import Detector

Images = Annotated[
    Path,
    typer.Option(
        help="Folder with images of good parts: not selected, and not used in training.",
        exists=True,
        file_okay=False,
    ),
]
Recursive = Annotated[bool, typer.Option("--recursive", help="Include subfolders.")]
Station = Annotated[str | None, typer.Option(help="Calibrate only this station.")]
PrecisionOption = Annotated[
    Precision, typer.Option(envvar="FLOWGAUGE_PRECISION", help="float32, bfloat16 or openvino-bfloat16.")
]
Reason = Annotated[str, typer.Option(help="Reason for the audit log.")]


def calibrate(
    category: CategoryOption,
    images: Images,
    recursive: Recursive = False,
    station: Station = None,
    precision: PrecisionOption = "float32",
    reason: Reason = "flowgauge calibrate",
    version: VersionOption = None,
    models: Models = MODELS_FOLDER,
    threads: Threads = None,
    device: Device = "auto",
    as_json: AsJson = False,
    progress: ProgressFormat = "text",
) -> None:
    """Recalibrate a model with good images of the line, without training.

    Rates stay as they are set. Thresholds, p-values and heatmap colours follow from these images, also in a
    running server. A false-reject rate of 1 % needs 99 images.

    Images that the model was fitted to, copies and unreadable images are refused.
    """
    from flows.fastflow.bundle import models_folder

    _require_texts(reason, station)
    models_folder.require_own(models)
    folder = models_folder.resolve(models, category, version)
    # Imported last: torch takes seconds, and what is wrong with the arguments is said at once.
    import torch

    from app.recalibration.image_folder import FolderError, find_images, measure_images
    from app.registry.loader import Loader
    from flows.fastflow.bundle import image_digests
    from flows.fastflow.progress import JsonProgress, write_event

    try:
        found = find_images(images, recursive=recursive)
    except FolderError as error:
        raise typer.BadParameter(str(error), param_hint="--images") from error
    if threads is not None:
        torch.set_num_threads(threads)
    detector = Loader(models, device, precision).read(folder, uncalibrated=True)
    fitted = image_digests.read_digests(folder, detector.manifest)
    known = {"station": station, "reason": reason, "version": folder.name, "engine": precision}
    with audited("model.calibrate", category, known) as detail:
        reporter = JsonProgress({"calibrate": 1}) if progress == "json" else None
        measured = measure_images(detector, found, fitted, reporter, quiet=as_json)
        result = _recalibrate(models, detector, list(measured.values()), fitted, station, reason)
        result |= {
            "of_parts": len(measured) < len(found.files),
            "parts_file": found.parts_file and str(found.parts_file),
        }
        detail |= result
    told = known | result
    if progress == "json":
        write_event("result", **told)
    elif as_json:
        typer.echo(json.dumps(told, indent=1))
    else:
        _print(told, {name: image.measurement.score for name, image in measured.items()})


def _require_texts(reason: str, station: str | None) -> None:
    if not 1 <= len(reason) <= 500 or station == "":
        raise typer.BadParameter("a reason has 1 to 500 characters, the name of a station at least one")
    require_text(station, "--station")


def _recalibrate(
    models: Path,
    detector: "Detector",
    measured: "list[MeasuredImage]",
    fitted: "ImageDigests | None",
    station: str | None,
    reason: str,
) -> dict[str, Any]:
    """Put a new calibration in force and describe it for the audit log."""
    from app.auth.permissions import COMMAND_LINE
    from app.recalibration.recalibrate import recalibrate
    from app.registry.calibrations import CalibrationFiles
    from app.registry.category_settings import SettingsFiles
    from flows.fastflow.engines.engine import describe_slow_precision

    category = detector.manifest.category
    changed = recalibrate(
        CalibrationFiles(models),
        SettingsFiles(models).get(category),
        *(detector, station, measured),
        fitted=fitted,
        by=COMMAND_LINE.actor,
        reason=reason,
    )
    slow = describe_slow_precision(detector.scorer.precision, detector.device)
    return {
        "category": category,
        "calibration": changed.after.calibrator.identifier,
        "fingerprint": changed.after.stored.pictures,
        "before": changed.before and changed.before.model_dump(),
        "threshold": changed.threshold.model_dump(),
        "warnings": [*changed.warnings, *filter(None, [slow])],
        "pictures": len(measured),
    }


def _print(result: Mapping[str, Any], scores: Mapping[str, float]) -> None:
    from flows.fastflow.calibration.conformal import describe_promise
    from flows.fastflow.calibration.highest_scores import (
        describe_highest_scoring,
        describe_recommended_rate,
        highest_scoring,
    )

    scope = "all stations" if result["station"] is None else f"station {result['station']}"
    one_per_part = ", one of each part" if result["of_parts"] else ""
    typer.echo(
        f"{result['category']}/{result['version']}, {result['engine']}, {scope}: calibrated with "
        f"{result['pictures']} images{one_per_part} ({result['calibration']})"
    )
    if result["parts_file"] is not None:
        typer.echo(f"images of the same part are grouped by {result['parts_file']}")
    after, before = result["threshold"], result["before"]
    certified = "certified" if after["certified"] else "NOT certified"
    promise = describe_promise(after["n_calibration"], after["target_fpr"])
    asked = f"asked for {after['target_fpr']:.2%}, {certified}"
    change = (
        "" if before is None else f", {after['reject'] - before['reject']:+.4g} from {before['reject']:.4g}"
    )
    typer.echo(f"REJECT above {after['reject']:.4g}{change}: {promise} ({asked})")
    if after["review"] is not None and after["review"] < after["reject"]:
        typer.echo(f"REVIEW above {after['review']:.4g}")
    names, values = list(scores), list(scores.values())
    for warning in result["warnings"]:
        typer.secho(f"warning: {warning}", fg="yellow", err=True)
    typer.echo(describe_highest_scoring([names[i] for i in highest_scoring(values)], values))
    if text := describe_recommended_rate(values, after["target_fpr"]):
        typer.echo(text)
