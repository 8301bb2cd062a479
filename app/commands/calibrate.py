"""`flowgauge calibrate`: new thresholds for a model from good pictures of the line, without training."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import track

from app.commands.auditing import audited
from app.schemas.texts import text_fault

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from app.calibrations import Slot
    from app.category_settings import CategorySettings
    from app.recalibration import Measured
    from flows.fastflow.calibration import Calibrator
    from flows.fastflow.detector import Detector
    from flows.fastflow.fit_pictures import FitPictures
    from flows.fastflow.manifest import Precision
    from flows.fastflow.scorer import Scorer

_LEVELS: Final = 4  # above the pictures' folder, in which a parts.txt is looked for


def calibrate(
    category: Annotated[str, typer.Option(help="Which model, e.g. bottle.")],
    images: Annotated[
        Path,
        typer.Option(help="Folder with pictures of good parts, as they come, none of them trained on."),
    ],
    recursive: Annotated[bool, typer.Option("--recursive", help="Take those in its folders, too.")] = False,
    station: Annotated[
        str | None, typer.Option(help="Only for this station, as it comes with pictures to the server.")
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            envvar="FLOWGAUGE_PRECISION", help="Of the engine: float32, bfloat16 or openvino-bfloat16."
        ),
    ] = "float32",
    reason: Annotated[str, typer.Option(help="Why, for the audit log.")] = "flowgauge calibrate",
    version: Annotated[str | None, typer.Option(help="A version. Without it, the active one.")] = None,
    models: Annotated[
        Path, typer.Option(envvar="FLOWGAUGE_MODELS", help="Folder of the published models.")
    ] = Path("models"),
    threads: Annotated[
        int | None, typer.Option(help="CPU threads.", min=1, show_default="torch's choice")
    ] = None,
    device: Annotated[
        str, typer.Option(envvar="FLOWGAUGE_DEVICE", help="auto, cpu, cuda or cuda:N.")
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Renew a model's calibration with good pictures of the line. Nothing is trained.

    The rates that are set stay; thresholds, p-values and the colours of heatmaps follow from these pictures
    from now on, for the whole category or for one station, also in a server that is running. To promise that
    on average at most 1 % of good pictures are rejected takes 99, for 0.1 % it takes 999.

    Refused are pictures that the model was fitted to, copies, and pictures that cannot be read.
    """
    import torch

    from flows.fastflow.manifest import PRECISIONS
    from flows.fastflow.parts import numbered

    engine = next((known for known in PRECISIONS if known == precision), None)
    if engine is None:
        raise typer.BadParameter(f"{precision!r}: use {' or '.join(PRECISIONS)}", param_hint="--precision")
    if not 1 <= len(reason) <= 500 or station == "":
        raise typer.BadParameter("a reason has 1 to 500 characters, the name of a station at least one")
    if station is not None and (fault := text_fault(station)):
        raise typer.BadParameter(f"{station!r} {fault}", param_hint="--station")
    files = _files(images, recursive=recursive)
    parts_file = _parts_file(images)
    parts = numbered([f.name for f in files.values()], images if parts_file is None else parts_file.parent)
    if threads is not None:
        torch.set_num_threads(threads)
    target = _Target.load(models, category, version, engine, station, device)
    known = {"station": station, "reason": reason, "version": target.folder.name, "engine": engine}
    with audited("model.calibrate", category, known) as detail:
        chosen, measured = _measured(files, parts, target, quiet=as_json)
        told = {
            "category": category,
            **_recalibrate(target, measured, reason),
            "pictures": len(measured),
            "of_parts": len(chosen) < len(files),
            "parts_file": None if parts_file is None else str(parts_file),
        }
        detail |= told
    if as_json:
        typer.echo(json.dumps({**known, **told}, indent=1))
    else:
        _print({**known, **told}, chosen, [one.measurement.score for one in measured])


@dataclass(frozen=True)
class _Target:
    """The version to calibrate, loaded.

    Attributes:
        models: the models folder.
        folder: of the version.
        must_stay_active: whether the version was chosen because it is the active one.
        slot: what the new calibration is for.
        loaded: the version in float32, which every bundle can be checked by.
        scorer: the same by the engine to calibrate, for which there may be no calibration yet.
        fitted: images that the version was fitted to, None if it does not say.
    """

    models: Path
    folder: Path
    must_stay_active: bool
    slot: "Slot"
    loaded: "Detector"
    scorer: "Scorer"
    fitted: "FitPictures | None"

    @classmethod
    def load(
        cls,
        models: Path,
        category: str,
        version: str | None,
        engine: "Precision",
        station: str | None,
        device: str,
    ) -> "_Target":
        from app.calibrations import Slot
        from app.recalibration import UnfitPicturesError
        from flows.fastflow import fit_pictures, models_folder
        from flows.fastflow.detector import Detector
        from flows.fastflow.engines import pick_engine

        folder = models_folder.resolve(models, category, version)
        loaded = Detector.load(folder, device=device)
        if loaded.calibrator.target_fpr > 0.5:  # as training refuses, see `training.config`
            raise UnfitPicturesError(
                f"{category}/{folder.name} was made to reject up to {loaded.calibrator.target_fpr:.0%} of "
                "good parts. Above half of them there is no pixel threshold to speak of: train it again with "
                "--target-fpr 0.5 or less"
            )
        return cls(
            models,
            folder,
            version is None,
            Slot(loaded.manifest, loaded.sha256, engine, station),
            loaded,
            loaded.scorer.with_engine(pick_engine(engine, loaded.device)),
            fit_pictures.load(folder, loaded.manifest),
        )


def _recalibrate(target: _Target, measured: Sequence["Measured"], reason: str) -> dict[str, Any]:
    """Put a new calibration in force; returns what changed, JSON."""
    from app import verdict
    from app.access import COMMAND_LINE
    from app.calibrations import CalibrationFiles, InForce, Renewal
    from app.category_settings import SettingsFiles
    from app.problems import Problem
    from app.recalibration import UnfitPicturesError, renewal
    from flows.fastflow import models_folder
    from flows.fastflow.detector import own_calibrator

    slot, category = target.slot, target.slot.manifest.category
    calibrations = CalibrationFiles(target.models)

    def edit(_: InForce | None) -> Renewal:
        # Measuring may have taken minutes. Nothing is activated from here on: this has its lock.
        active = models_folder.active_version(target.models, category)
        if target.must_stay_active and active != target.folder.name:
            raise Problem(
                "conflict",
                f"Another version was activated since {category}/{target.folder.name} was loaded; nothing "
                "was changed. Start again, or name that one by --version.",
            )
        asked = target.loaded.calibrator.target_fpr
        return renewal(slot, measured, target_fpr=asked, by=COMMAND_LINE.actor, reason=reason)

    try:
        settings = SettingsFiles(target.models).get(category)
        found = calibrations.find(slot)
        after = calibrations.change(slot, edit)
    except Problem as problem:
        raise UnfitPicturesError(problem.detail) from problem
    assert after is not None  # noqa: S101  (edit gives one)
    own = own_calibrator(slot.manifest, slot.sha256, slot.precision)
    before = own if found is None else found.calibrator
    shown = verdict.shown(verdict.thresholds(after.calibrator, settings))
    was = None if before is None else verdict.shown(verdict.thresholds(before, settings)).model_dump()
    return {
        "calibration": after.calibrator.identifier,
        "fingerprint": after.renewal.pictures,
        "before": was,
        "threshold": shown.model_dump(),
        "warnings": _warnings(target, before, after.calibrator, settings),
    }


def _warnings(
    target: _Target, before: "Calibrator | None", after: "Calibrator", settings: "CategorySettings"
) -> list[str]:
    """Return sentences about the new calibration that a person should read."""
    from app.calibrations import CalibrationFiles
    from app.recalibration import warnings_of
    from flows.fastflow.engines import slower_here
    from flows.fastflow.manifest import PRECISIONS

    engine = target.slot.precision
    warnings = warnings_of(before, after, settings, target.fitted)
    calibrated = {*CalibrationFiles(target.models).precisions(target.slot), *target.slot.manifest.thresholds}
    if others := [one for one in PRECISIONS if one != engine and one in calibrated]:
        warnings.append(
            f"engines of {engine} alone decide by this, those of {' and '.join(others)} as before: the "
            "server's is its FLOWGAUGE_PRECISION"
        )
    if slower := slower_here(engine, target.loaded.device):
        warnings.append(slower)
    return warnings


def _files(folder: Path, *, recursive: bool) -> dict[str, Path]:
    """Return the images of a folder by their names in it. Below it defective parts and masks may lie."""
    from flows.fastflow.images import IMAGE_SUFFIXES
    from flows.fastflow.parts import PARTS
    from flows.fastflow.picture_files import pictures_below
    from flows.fastflow.plain_files import escaped

    def wrong(said: str) -> typer.BadParameter:
        return typer.BadParameter(said, param_hint="--images")

    if not folder.is_dir():
        raise wrong(f"there is no folder {folder}")
    closed: list[OSError] = []
    files = pictures_below(folder, closed.append)
    if closed and (recursive or not files):
        raise closed[0]
    if not files:
        raise wrong(f"{folder} holds no pictures ({' '.join(sorted(IMAGE_SUFFIXES))})")
    below = [name for name in files if "/" in name]
    if below and not recursive:
        raise wrong(
            f"{folder} has folders with pictures in it, such as {escaped(below[0])}: name the one with the "
            "good parts, or add --recursive if all of them are good"
        )
    inner = {folder / above for name in below for above in PurePosixPath(name).parents[:-1]}
    # Its pictures of one part would be taken for several parts, and promise too much.
    if told := sorted(one for one in inner if (one / PARTS).exists()):
        raise wrong(
            f"{told[0] / PARTS} tells which of the pictures below it show the same part, and is not read for "
            f"{folder}: name the folder of the {PARTS}, {told[0]}"
        )
    return files


def _parts_file(folder: Path) -> Path | None:
    """Return the nearest parts.txt, in the folder or above it: it tells which images show the same part.

    It lies in the category's folder: two levels above validation/good, three above Data/Images/Normal.
    """
    from flows.fastflow.parts import PARTS

    looked = [folder, *folder.absolute().parents[:_LEVELS]]
    return next((one / PARTS for one in looked if (one / PARTS).exists()), None)


def _measured(
    files: Mapping[str, Path], parts: "NDArray[np.int64]", target: _Target, *, quiet: bool
) -> tuple[list[str], list["Measured"]]:
    """Score one image of each part, one by one, as parts on the line come.

    Args:
        files: the images by name.
        parts: the number of the part that each shows.
        target: the model.
        quiet: show no progress.

    Returns:
        The names of the images that were taken, and their measurements.

    Raises:
        UnfitPicturesError: an image may not be used or cannot be read; it is named.
    """
    from app.recalibration import Measured, UnfitPicturesError, expect_fit_to_calibrate
    from flows.fastflow.calibration import measure
    from flows.fastflow.images import ImageError, read
    from flows.fastflow.parts import one_of_each
    from flows.fastflow.plain_files import file_hashes

    names = list(files)
    hashes = file_hashes(list(files.values()))
    # Of a part also those that are not drawn: if one was fitted, all are.
    expect_fit_to_calibrate(list(zip(names, hashes, strict=True)), target.fitted)
    rows = one_of_each(parts, hashes).tolist()
    measured, unreadable = [], []
    for row in track(rows, "Scoring", console=Console(stderr=True), transient=True, disable=quiet):
        file = files[names[row]]
        try:
            [scored] = target.scorer.score([read(file, sample_bits=target.slot.manifest.sample_bits)])
        except ImageError as error:
            unreadable.append(str(error))
            continue
        measured.append(Measured(str(file), hashes[row], measure(scored)))
    if unreadable:
        raise UnfitPicturesError(
            "\n".join(["these pictures cannot be read, nothing was changed:", *unreadable])
        )
    return [names[row] for row in rows], measured


def _print(told: Mapping[str, Any], names: Sequence[str], scores: Sequence[float]) -> None:
    from flows.fastflow.conformal import realised_range
    from flows.fastflow.highest import highest, say_highest

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
    elif after["review"] is not None:
        typer.echo("nothing goes to a person: both thresholds are the same score")
    for warning in told["warnings"]:
        typer.secho(f"look: {warning}", fg="yellow", err=True)
    typer.echo(say_highest(highest(names, scores), scores, after["target_fpr"]))
