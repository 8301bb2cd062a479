"""`flowgauge backup`: copies of what a service has kept and what it serves."""

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from app.settings import settings_from

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The backup folder, on another disk.")]
Name = Annotated[str | None, typer.Argument(metavar="[SNAPSHOT]", help="By default the newest.")]
History = Annotated[Path | None, typer.Option(help="The history folder.", show_default="history")]
Models = Annotated[Path | None, typer.Option(help="The models folder.", show_default="models")]

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


@app.callback()
def backup() -> None:
    """Back up a service while it runs: history, pictures, reviews, keys, audit log, models, settings.

    A backup folder holds snapshots; each copies only the pictures and models that none before it had.
    FLOWGAUGE_HISTORY, FLOWGAUGE_DATABASE and FLOWGAUGE_MODELS must be set as for the server.
    """


# Imported in the commands and not above: torch takes seconds, and --help must not.


@app.command("create")
def create(
    folder: Folder,
    keep: Annotated[int | None, typer.Option(min=1, help="Then delete all snapshots but so many.")] = None,
    history: History = None,
    models: Models = None,
) -> None:
    """Take a snapshot; all that was answered before is in it. The server may run.

    Exit code 1, with the reason: there is no snapshot; or there is, but an older one cannot be read, so that
    --keep deletes nothing.
    """
    from app.backup.create import create as take
    from app.backup.folder import BackupFolder

    there = BackupFolder(folder)
    name, copied = take(settings_from(history=history, models=models), there)
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
    folder: Folder, as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False
) -> None:
    """List the snapshots, oldest first. Exit code 1: there is one that cannot be read, which is then said."""
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
    """Read every file of a snapshot, and say what is missing or damaged. Exit code 1: something is."""
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
    """Bring a snapshot back into an empty history, for a server that does not run. Nothing is overwritten.

    One that was broken off is done again by the same command.

    A snapshot of a history in PostgreSQL needs FLOWGAUGE_DATABASE to name an empty database there.
    """
    from app.backup.folder import BackupFolder
    from app.backup.restore import restore as bring_back

    there = BackupFolder(folder)
    settings, chosen = settings_from(history=history, models=models), there.find(name)
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
