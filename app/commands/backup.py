"""`flowgauge backup`: create, verify and restore snapshots of a service."""

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from app.commands.options import AsJson, History, ModelsOrDefault
from app.settings import load_settings

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Backup folder, best on another disk.")]
Name = Annotated[str | None, typer.Argument(metavar="[SNAPSHOT]", help="Snapshot; by default the newest.")]

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


@app.callback()
def backup() -> None:
    """Back up a service while it runs: history, images, reviews, datasets, keys, audit log, models and
    settings.

    A snapshot copies only images and models that no earlier snapshot has. Set FLOWGAUGE_HISTORY,
    FLOWGAUGE_DATABASE and FLOWGAUGE_MODELS as for the server.
    """


# Heavy modules are imported inside the commands: torch takes seconds, and --help must not.


@app.command("create")
def create(
    folder: Folder,
    keep: Annotated[int | None, typer.Option(min=1, help="Then delete all but this many snapshots.")] = None,
    history: History = None,
    models: ModelsOrDefault = None,
) -> None:
    """Take a snapshot of everything answered so far. The server may run.

    Exit code 1: no snapshot was made, or an older one cannot be read, so --keep deleted nothing.
    """
    from app.backup.create import create_snapshot
    from app.backup.folder import BackupFolder

    backups = BackupFolder(folder)
    name, copied = create_snapshot(load_settings(history=history, models=models), backups)
    snapshot = backups.snapshot(name)
    versions = sum(map(len, snapshot.models.values()))
    contents = f"inspections: {snapshot.inspections}, versions of models: {versions}"
    typer.echo(f"{name}: {contents}; {copied:,} bytes copied")
    if keep is not None:
        with backups.locked():
            for old in backups.prune(keep, name):
                typer.echo(f"{old} is deleted")


@app.command("list")
def list_snapshots(folder: Folder, as_json: AsJson = False) -> None:
    """List the snapshots, the oldest first. Exit code 1: one of them cannot be read."""
    from app.backup.folder import BackupError, BackupFolder

    backups = BackupFolder(folder)
    rows, damaged = [], []
    for name in backups.names():
        try:
            snapshot = backups.snapshot(name)
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

    backups = BackupFolder(folder)
    chosen = backups.find(name)
    faults = backups.verify(chosen)
    for fault in faults:
        typer.echo(fault)
    typer.echo(f"{chosen}: {f'{len(faults)} faults' if faults else 'good'}")
    if faults:
        raise typer.Exit(1)


@app.command("restore")
def restore(
    folder: Folder, name: Name = None, history: History = None, models: ModelsOrDefault = None
) -> None:
    """Restore a snapshot into an empty history while the server is stopped. Nothing is overwritten.

    Run the same command again after an interruption. A snapshot of a PostgreSQL history needs an empty
    database in FLOWGAUGE_DATABASE.
    """
    from app.backup.folder import BackupFolder
    from app.backup.restore import restore_snapshot

    backups = BackupFolder(folder)
    settings, chosen = load_settings(history=history, models=models), backups.find(name)
    has_models = restore_snapshot(settings, backups, chosen)
    typer.echo(
        f"{chosen} is restored: {backups.snapshot(chosen).inspections} inspections in {settings.history}"
    )
    if has_models:
        typer.echo(f"its models are restored to {settings.models}")
    else:
        typer.echo(f"the models are not restored: the folder {settings.models} is not empty", err=True)
    typer.echo(
        "keys are those of the snapshot: one that was revoked later is valid again. List them with "
        f"`flowgauge keys list --history {shlex.quote(str(settings.history))}`"
    )
