"""`flowgauge calibrate`: new thresholds for a model from good pictures of the line, without training."""

import json
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import track

from app.schemas.texts import text_fault

if TYPE_CHECKING:
    from app.renewing import Measured
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

    from app import verdict
    from app.access import COMMAND_LINE
    from app.calibrations import CalibrationFiles
    from app.category_settings import SettingsFiles
    from app.commands.auditing import audited
    from app.problems import Problem
    from app.renewals import InForce, Renewal, Slot
    from app.renewing import UnfitPicturesError, expect_fit_to_calibrate, renewal, say_unlike, unlike
    from flows.fastflow import fit_pictures, models_folder
    from flows.fastflow.detector import Detector, own_calibrator
    from flows.fastflow.engines import pick_engine, slower_here
    from flows.fastflow.highest import highest, say_highest
    from flows.fastflow.manifest import PRECISIONS
    from flows.fastflow.parts import numbered, one_of_each
    from flows.fastflow.plain_files import file_hashes
    from flows.fastflow.review_band import say_empty_band

    engine = next((known for known in PRECISIONS if known == precision), None)
    if engine is None:
        raise typer.BadParameter(f"{precision!r}: use {' or '.join(PRECISIONS)}", param_hint="--precision")
    if not 1 <= len(reason) <= 500 or station == "":
        raise typer.BadParameter("a reason has 1 to 500 characters, the name of a station at least one")
    if station is not None and (fault := text_fault(station)):
        raise typer.BadParameter(f"{station!r} {fault}", param_hint="--station")
    files = _files(images, recursive=recursive)
    told_by = _parts_file(images)
    # Before anything that takes long.
    parts = numbered([file.name for file in files.values()], images if told_by is None else told_by.parent)
    if threads is not None:
        torch.set_num_threads(threads)
    folder = models_folder.resolve(models, category, version)
    # By float32, which every bundle can be checked by; the engine may have no calibration yet.
    loaded = Detector.load(folder, device=device)
    scorer = loaded.scorer.with_engine(pick_engine(engine, loaded.device))
    slot = Slot(loaded.manifest, loaded.sha256, engine, station)
    calibrations = CalibrationFiles(models)
    try:
        calibrations.expect_served(slot)  # before anything is scored in vain
    except Problem as problem:
        raise UnfitPicturesError(problem.detail) from problem
    fitted = fit_pictures.load(folder, loaded.manifest)
    target_fpr = loaded.calibrator.target_fpr
    if target_fpr > 0.5:  # as training refuses, see `training.config`
        raise UnfitPicturesError(
            f"{category}/{folder.name} was made to reject up to {target_fpr:.0%} of good parts. Above half "
            "of them there is no pixel threshold to speak of: train it again with --target-fpr 0.5 or less"
        )
    known = {"station": station, "reason": reason, "version": folder.name, "engine": engine}
    with audited("model.calibrate", category, known) as detail:
        hashes = file_hashes(list(files.values()))
        # Of a part also those that are not drawn: if one was fitted, all are.
        expect_fit_to_calibrate(list(zip(files, hashes, strict=True)), fitted)
        names, rows = list(files), one_of_each(parts, hashes).tolist()
        chosen = [names[i] for i in rows]
        drawn = [(files[names[i]], hashes[i]) for i in rows]
        measured = _measured(drawn, scorer, loaded.manifest.sample_bits, quiet=as_json)

        def edit(_: InForce | None) -> Renewal:
            # Measuring may have taken minutes. Nothing is activated from here on: this has its lock.
            if version is None and models_folder.active_version(models, category) != folder.name:
                raise Problem(
                    "conflict",
                    f"Another version was activated since {category}/{folder.name} was loaded; nothing was "
                    "changed. Start again, or name that one by --version.",
                )
            return renewal(slot, measured, target_fpr=target_fpr, by=COMMAND_LINE.actor, reason=reason)

        try:
            settings = SettingsFiles(models).get(category)
            found = calibrations.find(slot)
            after = calibrations.change(slot, edit)
        except Problem as problem:
            raise UnfitPicturesError(problem.detail) from problem
        assert after is not None  # noqa: S101  (edit gives one)
        before = own_calibrator(loaded.manifest, loaded.sha256, engine) if found is None else found.calibrator
        warnings = []
        if before is not None:
            warnings = [say_unlike(one) for one in unlike(before.calibration, after.renewal.calibration)]
        if fitted is None:
            warnings.append("the version does not say which pictures it was fitted to; use none of those")
        renewed = calibrations.precisions(slot)
        if others := [
            other
            for other in PRECISIONS
            if other != engine and (other in renewed or loaded.manifest.calibration_of(other) is not None)
        ]:
            warnings.append(
                f"engines of {engine} alone decide by this, those of {' and '.join(others)} as before: the "
                "server's is its FLOWGAUGE_PRECISION"
            )
        if slower := slower_here(engine, loaded.device):
            warnings.append(slower)
        band = verdict.review_fpr(after.calibrator, settings)
        shown = verdict.shown(verdict.thresholds(after.calibrator, settings))
        if empty := say_empty_band(shown.n_calibration, shown.target_fpr, band):
            warnings.append(empty)
        told = {
            "category": category,
            "calibration": after.calibrator.identifier,
            "pictures": len(measured),
            "of_parts": len(chosen) < len(files),
            "parts_file": None if told_by is None else str(told_by),
            "fingerprint": after.renewal.pictures,
            "before": None
            if before is None
            else verdict.shown(verdict.thresholds(before, settings)).model_dump(),
            "threshold": shown.model_dump(),
            "warnings": warnings,
        }
        detail |= told
    if as_json:
        typer.echo(json.dumps({**known, **told}, indent=1))
    else:
        _print({**known, **told})
        scores = [one.measurement.score for one in measured]
        typer.echo(say_highest(highest(chosen, scores), scores, shown.target_fpr))


def _files(folder: Path, *, recursive: bool) -> dict[str, Path]:
    """The pictures of the folder, by their names in it. Below it defective parts and masks may lie."""
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
    if odd := [name for name in map(escaped, files) if name not in files]:
        raise wrong(f"the name of {odd[0]} is not in UTF-8: give it another one")
    inner = {folder / above for name in below for above in PurePosixPath(name).parents[:-1]}
    # Parts of these pictures are told there, and taken for parts of their own they would promise too much.
    if told := sorted(one for one in inner if os.path.lexists(one / PARTS)):
        raise wrong(
            f"{told[0] / PARTS} tells which of the pictures below it show the same part, and is not read for "
            f"{folder}: name the folder of the {PARTS}, {told[0]}"
        )
    return files


def _parts_file(folder: Path) -> Path | None:
    """The parts.txt that tells which pictures show the same part: the nearest, in the folder or above it.

    It lies in the category's folder: two levels above validation/good, three above Data/Images/Normal.
    """
    from flows.fastflow.parts import PARTS

    # Of a link the folders that it lies in come first: they are the ones that were named.
    named, real = Path(os.path.abspath(folder)), folder.resolve()  # noqa: PTH100  (keeps links)
    looked = [folder, *named.parents[:_LEVELS], *real.parents[:_LEVELS]]
    return next((one / PARTS for one in looked if os.path.lexists(one / PARTS)), None)


def _measured(
    files: Sequence[tuple[Path, str]], scorer: "Scorer", sample_bits: int, *, quiet: bool
) -> list["Measured"]:
    """Score pictures, each with its sha256, one by one, as parts on the line come.

    Raises:
        UnfitPicturesError: some cannot be read; they are named.
    """
    from app.renewing import Measured, UnfitPicturesError
    from flows.fastflow.calibration import measure
    from flows.fastflow.images import ImageError, read

    measured, unreadable = [], []
    steps = track(files, "Scoring", console=Console(stderr=True), transient=True, disable=quiet)
    for file, sha256 in steps:
        try:
            [scored] = scorer.score([read(file, sample_bits=sample_bits)])
        except ImageError as error:
            unreadable.append(str(error))
            continue
        measurement = measure(scored)
        measured.append(Measured(str(file), sha256, measurement))
    if unreadable:
        raise UnfitPicturesError(
            "\n".join(["these pictures cannot be read, nothing was changed:", *unreadable])
        )
    return measured


def _print(told: dict[str, Any]) -> None:
    from flows.fastflow.conformal import realised_range

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
