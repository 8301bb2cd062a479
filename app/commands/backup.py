"""`flowgauge backup`: create, verify and restore snapshots of a service."""

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from app.settings import load_settings

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Backup folder, best on another disk.")]
Name = Annotated[str | None, typer.Argument(metavar="[SNAPSHOT]", help="Snapshot; by default the newest.")]
History = Annotated[Path | None, typer.Option(help="Folder of the history.", show_default="history")]
Models = Annotated[Path | None, typer.Option(help="Folder of the published models.", show_default="models")]

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


@app.callback()
def backup() -> None:
    """Back up a service while it runs: history, images, reviews, keys, audit log, models and settings.

    A snapshot copies only images and models that no earlier snapshot has. Set FLOWGAUGE_HISTORY,
    FLOWGAUGE_DATABASE and FLOWGAUGE_MODELS as for the server.
    """


# Imported in the commands and not above: torch takes seconds, and --help must not.


@app.command("create")
def create(
    folder: Folder,
    keep: Annotated[int | None, typer.Option(min=1, help="Then delete all but this many snapshots.")] = None,
    history: History = None,
    models: Models = None,
) -> None:
    """Take a snapshot of everything answered so far. The server may run.

    Exit code 1: no snapshot was made, or an older one cannot be read, so --keep deleted nothing.
    """
    from app.backup.create import create as take
    from app.backup.folder import BackupFolder

    there = BackupFolder(folder)
    name, copied = take(load_settings(history=history, models=models), there)
    snapshot = there.snapshot(name)
    versions = sum(map(len, snapshot.models.values()))
    held = f"inspections: {snapshot.inspections}, versions of models: {versions}"
    typer.echo(f"{name}: {held}; {copied:,} bytes copied")
    if keep is not None:
        with there.locked():
            for old in there.prune(keep, name):
                typer.echo(f"{old} is deleted")


@app.command("list")
def list_snapshots(
    folder: Folder, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """List the snapshots, the oldest first. Exit code 1: one of them cannot be read."""
    from app.backup.folder import BackupError, BackupFolder

    there = BackupFolder(folder)
    rows, damaged = [], []
    for name in there.names():
        try:
            snapshot = there.snapshot(name)
        except BackupError as error:
            damaged.append(str(error))
            continue
        rows.append({"name": name, **snapshot.model_dump()})
        if not as_json:
            categories = ", ".join(snapshot.models) or "none"
            typer.echo(f"{name}  {snapshot.inspections} inspections, categories: {categories}")
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    for reason in damaged:
        typer.echo(reason, err=True)
    if damaged:
        raise typer.Exit(1)


@app.command("verify")
def verify(folder: Folder, name: Name = None) -> None:
    """Read every file of a snapshot and list the faults. Exit code 1: a file is missing or damaged."""
    from app.backup.folder import BackupFolder

    there = BackupFolder(folder)
    chosen = there.find(name)
    faults = there.verify(chosen)
    for fault in faults:
        typer.echo(fault)
    typer.echo(f"{chosen}: {f'{len(faults)} faults' if faults else 'good'}")
    if faults:
        raise typer.Exit(1)


@app.command("restore")
def restore(folder: Folder, name: Name = None, history: History = None, models: Models = None) -> None:
    """Restore a snapshot into an empty history while the server is stopped. Nothing is overwritten.

    Run the same command again after an interruption. A snapshot of a PostgreSQL history needs an empty
    database in FLOWGAUGE_DATABASE.
    """
    from app.backup.folder import BackupFolder
    from app.backup.restore import restore as bring_back

    there = BackupFolder(folder)
    settings, chosen = load_settings(history=history, models=models), there.find(name)
    has_models = bring_back(settings, there, chosen)
    typer.echo(f"{chosen} is back: {there.snapshot(chosen).inspections} inspections in {settings.history}")
    if has_models:
        typer.echo(f"its models are in {settings.models}")
    else:
        typer.echo(f"left as it was: the models folder {settings.models} is not empty", err=True)
    typer.echo(
        "keys are as in the snapshot, and one that was revoked after it is valid again: list them with "
        f"`flowgauge keys list --history {shlex.quote(str(settings.history))}`"
    )
