"""`flowgauge models`: manage the versions of a models folder."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.options import MODELS_FOLDER, AsJson, Device, Models
from app.commands.server_database import audited
from app.settings import load_settings

if TYPE_CHECKING:
    from app.registry.loader import Loader

Category = Annotated[str, typer.Argument(help="Category of the model.")]
Version = Annotated[str, typer.Argument(help="Version of the model.")]
VersionOrActive = Annotated[str | None, typer.Argument(help="Version; by default the active one.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="File, or folder for it; by default CATEGORY-VERSION here."),
]

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


@app.callback()
def models() -> None:
    """List, verify, pack, export, activate and delete the versions of a models folder.

    No server is needed; a running server follows the changes. If FLOWGAUGE_HISTORY or FLOWGAUGE_DATABASE
    names the server's database, changes go to its audit log.
    """


# Heavy modules are imported inside the commands: torch takes seconds, and --help must not.


@app.command("list")
def list_models(models: Models = MODELS_FOLDER, as_json: AsJson = False) -> None:
    """List categories and versions, with the active and the previous version marked."""
    from flows.fastflow.bundle import models_folder

    rows = [
        {
            "category": category,
            "active": models_folder.active_version(models, category),
            "previous": models_folder.previous_version(models, category),
            "versions": models_folder.versions(models, category),
        }
        for category in models_folder.categories(models)
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        marks = {row["active"]: "  active", row["previous"]: "  previous"}
        for version in row["versions"] or ():
            typer.echo(f"{row['category']}/{version}{marks.get(version, '')}")
    if not rows:
        fault = models_folder.describe_category_folder(models)
        typer.echo(fault or f"There are no models in {models}.", err=True)


@app.command("verify")
def verify(
    category: Annotated[str | None, typer.Argument(help="Only this category.")] = None,
    version: Annotated[str | None, typer.Argument(help="Only this version.")] = None,
    models: Models = MODELS_FOLDER,
    device: Device = "auto",
) -> None:
    """Check versions as a server does: hashes, shapes, thresholds and the scores of the golden images.

    Exit code 1: a server would refuse one of them.
    """
    from app.errors.problems import Problem
    from flows.fastflow.bundle import models_folder

    folders = [
        models_folder.resolve(models, name, one)
        for name in (models_folder.categories(models) if category is None else [category])
        for one in (models_folder.versions(models, name) if version is None else [version])
    ]
    if not folders:
        typer.echo(f"There are no such models in {models}. `flowgauge models list` shows all.", err=True)
        raise typer.Exit(1)
    loader = _loader(models, device)
    refused = 0
    for folder in folders:
        result = "good"
        try:
            loader.read(folder)
        except (ValueError, Problem) as error:
            result = str(error)
            refused += 1
        typer.echo(f"{folder.parent.name}/{folder.name}  {result}")
    if refused:
        typer.echo(f"{refused} of {len(folders)} would be refused.", err=True)
        raise typer.Exit(1)


@app.command("pack")
def pack(
    category: Category, version: VersionOrActive = None, output: Output = None, models: Models = MODELS_FOLDER
) -> None:
    """Pack a version into a ZIP file for upload to a server, and print the file's name.

    The backbone's weights are not in the file; `flowgauge backbones pull` fetches them.
    """
    from app.registry import packing
    from flows.fastflow.bundle import models_folder
    from flows.fastflow.files.atomic_files import replacing

    folder = models_folder.resolve(models, category, version)
    target = _output_file(output, f"{category}-{folder.name}.zip")
    with replacing(target.absolute(), sync=False) as temporary, temporary.open("wb") as file:
        packing.pack(folder, file)
    typer.echo(str(target))


@app.command("export")
def export(
    category: Category, version: VersionOrActive = None, output: Output = None, models: Models = MODELS_FOLDER
) -> None:
    """Export a version as an ONNX file for other runtimes, and print the file's name.

    The graph's input is `images`, (N, H, W, 3) uint8 RGB of the model's input size; its outputs are `score`
    and `map`. The file's metadata hold the threshold.
    """
    from flows.fastflow.bundle import models_folder
    from flows.fastflow.detector import Detector
    from flows.fastflow.export.onnx import UnsuitableModelError, export_onnx

    folder = models_folder.resolve(models, category, version)
    target = _output_file(output, f"{category}-{folder.name}.onnx")
    try:
        export_onnx(Detector.load(folder, device="cpu"), target.absolute())
    except UnsuitableModelError as error:
        raise typer.BadParameter(str(error), param_hint="CATEGORY") from error
    typer.echo(str(target))


def _output_file(output: Path | None, name: str) -> Path:
    """Return the file to write: in an existing folder, by that name."""
    target = output or Path(name)
    return target / name if target.is_dir() else target


@app.command("activate")
def activate(
    category: Category, version: Version, models: Models = MODELS_FOLDER, device: Device = "auto"
) -> None:
    """Make a version the active one, if it passes `verify` and fits the category's settings."""
    with audited("model.activate", f"{category}/{version}") as detail:
        detail["previous"] = _activate(models, category, version, device)


@app.command("rollback")
def roll_back(category: Category, models: Models = MODELS_FOLDER, device: Device = "auto") -> None:
    """Activate the previous version."""
    from flows.fastflow.bundle import models_folder

    with audited("model.rollback", category) as detail:
        version = models_folder.previous_version(models, category)
        if version is None:
            # Checked only now: a missing active version is itself a reason to roll back.
            models_folder.resolve(models, category)
            raise models_folder.ModelConflictError(
                f"no version of {category!r} served before the active one, or it was deleted; activate one "
                f"by its name: {', '.join(models_folder.versions(models, category))}"
            )
        detail.update(active=version, previous=_activate(models, category, version, device))


@app.command("delete")
def delete(category: Category, version: Version, models: Models = MODELS_FOLDER) -> None:
    """Delete a version that is not active."""
    from flows.fastflow.bundle import models_folder

    with audited("model.delete", f"{category}/{version}"):
        models_folder.delete(models, category, version)
    typer.echo(f"{category}/{version} is deleted.")


def _activate(models: Path, category: str, version: str, device: str) -> str | None:
    """Activate a version that a server would accept, and return the previous one."""
    from app.registry import model_settings
    from app.registry.category_settings import SettingsFiles
    from flows.fastflow.bundle import models_folder

    detector = _loader(models, device).read(models_folder.resolve(models, category, version))
    model_settings.require_compatible_settings(detector, SettingsFiles(models).get(category))
    before = models_folder.activate(models, category, version)
    typer.echo(f"{category}/{version} is active.")
    for line in models_folder.describe_lost_calibrations(models, category, before, version):
        typer.echo(line)
    return before


def _loader(models: Path, device: str) -> "Loader":
    from app.registry.loader import Loader

    return Loader.from_settings(load_settings(models=models, device=device), keep_converted=False)
