"""Creation of a snapshot while the service runs.

A snapshot holds everything that was answered before it began. The journal is copied before the database, so
an entry filed in between is in the database. Images, maps and datasets are copied after the database, because
they are written before their rows.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from sqlalchemy import func, select

from app.auth.audit import Audit
from app.auth.permissions import COMMAND_LINE
from app.backup.dump import dump
from app.backup.folder import (
    MANIFEST,
    SNAPSHOT,
    BackupError,
    BackupFolder,
    ManifestLine,
    Snapshot,
    require_own_files,
)
from app.database import clock
from app.database.engine import Database, redact_url
from app.database.tables import inspections
from app.history import identity
from app.history.inspection_files import is_image_name
from app.settings import Settings
from app.storage.urls import StoreError
from flows.fastflow.bundle import models_folder
from flows.fastflow.files.atomic_files import temporary_directory
from flows.fastflow.files.plain_files import file_hashes

_MAPS: Final = "history/maps"


def create_snapshot(settings: Settings, folder: BackupFolder) -> tuple[str, int]:
    """Take a snapshot.

    Args:
        settings: of the service; history, database and models are used.
        folder: the backup folder, created if missing.

    Returns:
        The snapshot's name, and the bytes that no earlier snapshot had.

    Raises:
        BackupError: there is nothing to copy, or it cannot be copied. No incomplete snapshot is left.
        DatabaseError: the database cannot be used, or was made by another version of FlowGauge.
        OSError: a folder cannot be read or written.
    """
    require_own_files(settings)
    history = settings.history.absolute()
    if not settings.has_database:
        raise BackupError(f"there is no history in {history}: set FLOWGAUGE_HISTORY or --history")
    if not settings.models.is_dir():
        raise BackupError(
            f"there is no models folder {settings.models.absolute()}: set FLOWGAUGE_MODELS or --models"
        )
    if history == folder.path or history in folder.path.parents:
        raise BackupError(
            "the backup folder is inside the history and would be lost with it: choose another folder"
        )
    database = Database(settings.database_url)
    try:
        database.prepare()
        history_id = identity.read_identity(database)
        if history_id is None:
            raise BackupError(
                f"no server has used {redact_url(database.engine.url)} yet, so the snapshot would be empty. "
                "Set FLOWGAUGE_HISTORY and FLOWGAUGE_DATABASE as for the server"
            )
        try:
            identity.require_store(database, None, history_id)
        except StoreError as error:
            raise BackupError(f"FLOWGAUGE_STORE cannot be used: {error}") from error
        folder.create()
        with folder.locked():
            name, copied = _SnapshotWriter(history, settings.models.absolute(), folder, database).run()
        Audit(database).write(COMMAND_LINE, "backup.create", name, "done", {"copied": copied})
    finally:
        database.close()
    return name, copied


class _SnapshotWriter:
    def __init__(self, history: Path, models: Path, folder: BackupFolder, database: Database) -> None:
        self._history = history
        self._models = models
        self._folder = folder
        self._database = database
        self._copied = 0

    def run(self) -> tuple[str, int]:
        at_ms = clock.now_ms()
        with temporary_directory(self._folder.snapshots) as staging:
            manifest, copy = staging / MANIFEST, staging / "database"
            with manifest.open("w", encoding="utf-8", newline="\n") as text:
                text.writelines(f"{sha256}  {path}\n" for sha256, path in self._lines(copy))
            with self._database.read() as connection:
                count = connection.scalar(select(func.count()).select_from(inspections))
            snapshot = Snapshot(
                format=1,
                created=clock.iso(at_ms),
                flowgauge=version("flowgauge"),
                database="sqlite" if self._database.is_sqlite else "postgresql",
                inspections=count or 0,
                models={
                    category: models_folder.versions(self._models, category)
                    for category in models_folder.categories(self._models)
                },
                manifest_sha256=file_hashes([manifest])[0],
            )
            (staging / SNAPSHOT).write_text(snapshot.model_dump_json(indent=1), encoding="utf-8")
            # After a power loss no snapshot may name files that never reached the disk.
            os.sync()
            moment = datetime.fromtimestamp(at_ms / 1000, UTC)
            name = f"{moment:%Y%m%dT%H%M%S}{at_ms % 1000:03}Z"
            staging.rename(self._folder.snapshots / name)
        return name, self._copied

    def _lines(self, copy: Path) -> Iterator[ManifestLine]:
        """Copy everything and yield the manifest's lines; `copy` is a temporary path for the database."""
        yield from self._add(self._history / "journal", "history/journal")
        dump(self._database, copy)
        yield self._add_file(copy, "database")
        copy.unlink()
        yield from self._add(self._history / "pictures", "history/pictures")
        yield from self._add(self._history / "maps", _MAPS, self._known_maps())
        yield from self._add(self._history / "products", "history/products")
        # A version that was deleted meanwhile may be incomplete and is left out.
        lines = list(self._add(self._models, "models"))
        yield from (line for line in lines if (self._models / line.path.removeprefix("models/")).exists())

    def _add(self, root: Path, name: str, known: Mapping[str, str] | None = None) -> Iterable[ManifestLine]:
        """Copy the files below a folder.

        Args:
            name: of the folder in the manifest.
            known: sha256 of files that never change, by path; files in the backup are not read again.
        """
        for source in _files(root):
            path = f"{name}/{source.relative_to(root).as_posix()}"
            # An image's name is its sha256, in a dataset with a suffix.
            sha256 = source.stem if is_image_name(source.stem) else (known or {}).get(path)
            if sha256 is not None and self._folder.object_path(sha256).exists():
                yield ManifestLine(sha256, path)
                continue
            try:
                yield self._add_file(source, path)
            except FileNotFoundError:  # filed or deleted meanwhile
                continue

    def _add_file(self, source: Path, path: str) -> ManifestLine:
        sha256, copied = self._folder.add(source)
        self._copied += copied
        return ManifestLine(sha256, path)

    def _known_maps(self) -> dict[str, str]:
        """Return the sha256 of each map in the newest snapshot, by path."""
        try:
            names = self._folder.names()[-1:]
            lines = [line for name in names for line in self._folder.lines(name)]
        except BackupError:  # the snapshot is damaged: all maps are read again
            return {}
        return {path: sha256 for sha256, path in lines if path.startswith(_MAPS)}


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, without temporary ones; links to files are followed.

    Files come before subfolders, so that the version which ACTIVE names is copied after it.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:  # not made yet, or deleted meanwhile
        return
    yield from (path for path in paths if path.is_file())
    for path in paths:
        if path.is_dir():
            yield from _files(path)
