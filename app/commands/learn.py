"""`flowgauge learn`: a version that has learned from reviewed defects, without training."""

import json
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
)
from app.commands.server_database import audited

if TYPE_CHECKING:
    from flows.fastflow.learning.reviewed import ReviewedImage
    from flows.fastflow.manifest import Manifest

Defects = Annotated[
    Path, typer.Option(help="Folder with images of defective parts, also in subfolders; at least 5.")
]
Good = Annotated[
    Path | None,
    typer.Option(help="Folder with images of good parts, also in subfolders, such as false rejects."),
]


def learn(
    category: CategoryOption,
    defects: Defects,
    good: Good = None,
    version: VersionOption = None,
    models: Models = MODELS_FOLDER,
    threads: Threads = None,
    device: Device = "auto",
    as_json: AsJson = False,
    progress: ProgressFormat = "text",
) -> None:
    """Publish a version that has learned from reviewed defects, without training.

    A small part is added to the scores. Thresholds keep their promise even if reviews are wrong. The new
    version does not become active.

    Give all reviewed images each time: what the version has learned before is replaced. Images that it was
    fitted to or calibrated with are refused; copies with the same pixels are left out.
    """
    from flows.fastflow.bundle import models_folder, publication

    models_folder.require_own(models)
    # Imported last: torch takes seconds, and a copy is refused at once.
    import torch

    from flows.fastflow.bundle.bundle import read_manifest
    from flows.fastflow.detector import Detector
    from flows.fastflow.files.atomic_files import temporary_directory
    from flows.fastflow.learning.learn import learn as write_learned
    from flows.fastflow.learning.reviewed import LearningError
    from flows.fastflow.progress import JsonProgress, write_event

    if threads is not None:
        torch.set_num_threads(threads)
    folder = models_folder.resolve(models, category, version)
    before = read_manifest(folder)
    reviewed_defects = _find(defects, "--defects")
    reviewed_good = [] if good is None else _find(good, "--good")
    with (
        audited("model.learn", category, {"version": folder.name}) as detail,
        temporary_directory(models) as staging,
    ):
        reviewed = reviewed_defects, reviewed_good
        try:
            if progress == "json":
                with JsonProgress({"learn": 1}).stage("learn", sum(map(len, reviewed))) as advance:
                    written = write_learned(folder, staging, *reviewed, device, advance)
            else:
                written = write_learned(folder, staging, *reviewed, device)
        except LearningError as error:
            raise typer.BadParameter(str(error)) from error
        after = read_manifest(written)
        Detector.load(written, device=device, backbones=models / models_folder.BACKBONES)
        publication.move_into_place(written, models, after)
        result = _describe(before, after)
        detail |= result
    if progress == "json":
        write_event("result", **result)
    elif as_json:
        typer.echo(json.dumps(result, indent=1))
    else:
        _print(result)


def _find(folder: Path, option: str) -> "list[ReviewedImage]":
    """Find all images below a folder; raise BadParameter if there are none."""
    from flows.fastflow.files.plain_files import file_hashes
    from flows.fastflow.imaging.image_files import find_image_files
    from flows.fastflow.learning.reviewed import ReviewedImage

    files = find_image_files(folder) if folder.is_dir() else {}
    if not files:
        raise typer.BadParameter(f"{folder} holds no images", param_hint=option)
    hashes = file_hashes(list(files.values()))
    return [
        ReviewedImage(name, path, sha256) for (name, path), sha256 in zip(files.items(), hashes, strict=True)
    ]


def _describe(before: "Manifest", after: "Manifest") -> dict[str, Any]:
    assert after.learned is not None  # noqa: S101  (it has just learned)
    return {
        "category": after.category,
        "version": after.version,
        "from_version": before.version,
        "learned": after.learned.model_dump(),
        "replaced": None if before.learned is None else before.learned.model_dump(),
        "before": before.thresholds["float32"].model_dump(),
        "threshold": after.thresholds["float32"].model_dump(),
    }


def _print(result: dict[str, Any]) -> None:
    from flows.fastflow.calibration.conformal import describe_promise

    learned, category, version = result["learned"], result["category"], result["version"]
    typer.echo(
        f"{category}/{version}: {result['from_version']} with a part learned from {learned['defects']} "
        f"defects and {learned['good']} good images, at {learned['strength']:.0%} of its full weight"
    )
    typer.echo(
        f"of the {learned['defects']} defects, {learned['caught_before']} were above the threshold of the "
        f"flow alone, and {learned['caught']} are now, each scored by a part that has not seen it"
    )
    if learned["copies"]:
        typer.echo(f"left out: {learned['copies']} images with the pixels of others or of training images")
    if result["replaced"] is not None:
        typer.echo(
            f"what {result['from_version']} had learned from {result['replaced']['defects']} is replaced"
        )
    after, before = result["threshold"], result["before"]
    promise = describe_promise(after["n_calibration"], after["target_fpr"])
    typer.echo(f"REJECT above {after['reject']:.4g}, before {before['reject']:.4g}: {promise}")
    typer.echo(f"to use it: flowgauge models activate {category} {version}")
