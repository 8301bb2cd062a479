"""`flowgauge backup`: copies of what a service has kept and what it serves."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.settings import Settings, settings_from

if TYPE_CHECKING:
    from app.backup.folder import BackupFolder

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

    Exit code 1, with the reason: there is none; or there is, but something of it is missing, or an older one
    cannot be read, so that --keep deletes nothing.
    """
    from app.backup.folder import BackupFolder
    from app.backup.taking import take

    there = BackupFolder(folder)
    taken = take(_settings(history, models), there)
    versions = sum(len(category.versions) for category in taken.snapshot.models.values())
    typer.echo(
        f"{taken.name}: inspections: {taken.snapshot.rows['inspections']}, versions of models: {versions}; "
        f"{taken.copied:,} bytes copied"
    )
    if taken.behind is not None:
        typer.echo(
            f"the clock is wrong, or was: {taken.behind} was taken before this one. Snapshots keep the order "
            "in which they were taken; set the clock",
            err=True,
        )
    for problem in taken.snapshot.problems:
        typer.echo(f"missing: {problem}", err=True)
    if keep is not None:
        _say_gone(there, keep)
    if taken.snapshot.problems:
        raise typer.Exit(1)


@app.command("list")
def list_snapshots(
    folder: Folder, as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False
) -> None:
    """List the snapshots, oldest first, whatever the clock said that names them.

    Exit code 1: there is one that cannot be read, which is then said.
    """
    from app.backup.folder import BackupError, BackupFolder

    damaged, rows = [], []
    for name, snapshot in BackupFolder(folder).read_each():
        if isinstance(snapshot, BackupError):
            damaged.append(str(snapshot))
        elif as_json:
            rows.append({"name": name, **snapshot.model_dump()})
        else:
            missing = f", {snapshot.missing} missing" if snapshot.missing else ""
            typer.echo(
                f"{name}  {snapshot.rows['inspections']} inspections, categories: "
                f"{', '.join(snapshot.models) or 'none'}{missing}"
            )
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    for reason in damaged:
        typer.echo(reason, err=True)
    if damaged:
        raise typer.Exit(1)


@app.command("verify")
def verify(folder: Folder, name: Name = None) -> None:
    """Read every file of a snapshot, and say what is missing or damaged. Exit code 1: something is.

    What was missing already when it was taken is said as `create` did, and is no fault of the snapshot. A
    snapshot of an earlier version has no record of what its maps and its journal should be: that is said.
    """
    from app.backup.folder import BackupFolder
    from app.backup.verifying import unchecked
    from app.backup.verifying import verify as find_faults

    there = BackupFolder(folder)
    chosen = there.find(name)
    snapshot = there.snapshot(chosen)
    faults = find_faults(there, chosen)
    for problem in snapshot.problems:
        typer.echo(f"missing: {problem}", err=True)
    for line in unchecked(snapshot):
        typer.echo(f"not checked: {line}", err=True)
    for fault in faults:
        typer.echo(fault)
    typer.echo(f"{chosen}: {f'{len(faults)} faults' if faults else 'good'}")
    if faults:
        raise typer.Exit(1)


@app.command("restore")
def restore(
    folder: Folder,
    name: Name = None,
    history: History = None,
    models: Models = None,
    journal: Annotated[
        Path | None,
        typer.Option(
            help="The journal of the history used before: what waits there to be filed comes along."
        ),
    ] = None,
    incomplete: Annotated[
        bool,
        typer.Option("--incomplete", help="Leave out and say what the backup has lost, instead of stopping."),
    ] = False,
) -> None:
    """Bring a snapshot back into an empty history, for a server that does not run. Nothing is overwritten.

    Where the database is damaged, inspections that were answered since wait in the folder `journal` of the
    old history, and are nowhere else: name it by --journal.

    With FLOWGAUGE_DATABASE the rows go there, wherever they came from: so a history also moves from SQLite to
    PostgreSQL.
    """
    from app.backup.folder import BackupFolder
    from app.backup.restoring import restore as bring_back

    there = BackupFolder(folder)
    settings = _settings(history, models)
    restored = bring_back(settings, there, there.find(name), journal, incomplete=incomplete)
    typer.echo(
        f"{restored.name} is back: {restored.rows['inspections']} inspections, {restored.rows['reviews']} "
        f"reviews, {restored.rows['keys']} keys in {settings.history}; {restored.versions} versions of "
        f"models in {settings.models}"
    )
    if journal is not None:
        typer.echo(
            f"{restored.waiting:,} bytes of {journal} come along; the server files them when it starts"
        )
    for line in restored.lacking:
        typer.echo(f"missing: {line}", err=True)
    for line in restored.left_alone:
        typer.echo(f"left as it was: {line}", err=True)
    if valid := _valid_keys(settings):
        where = f"--history {shlex.quote(str(settings.history))}"
        typer.echo(
            f"valid keys: {valid}, as in the snapshot; one that was revoked after it is valid again. List "
            f"them with `flowgauge keys list {where}`, revoke with `flowgauge keys revoke ID {where}`"
        )


@app.command("prune")
def prune(folder: Folder, keep: Annotated[int, typer.Option(min=1, help="So many stay.")]) -> None:
    """Delete all but the newest snapshots, and the files that those do not need."""
    from app.backup.folder import BackupFolder

    _say_gone(BackupFolder(folder), keep)


def _valid_keys(settings: Settings) -> int:
    from app.database import clock
    from app.database.engine import Database
    from app.keys import Keys

    database = Database(settings.database_url)
    try:
        return sum(key.fault(clock.now_ms()) is None for key in Keys(database).list())
    finally:
        database.close()


def _say_gone(folder: "BackupFolder", keep: int) -> None:
    with folder.locked():
        for name in folder.prune(keep):
            typer.echo(f"{name} is deleted")


def _settings(history: Path | None, models: Path | None) -> Settings:
    return settings_from(history=history, models=models)
