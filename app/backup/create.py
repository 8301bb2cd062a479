"""Taking a snapshot of a service, which may run meanwhile.

Everything that was answered before it begins is in it: the journal is copied before the database, so what is
filed in between is in the database; and the database before the files, as it says which are needed.
"""

import errno
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final, TextIO

from sqlalchemy import ColumnElement, Connection, func, select

from app.access import COMMAND_LINE
from app.audit import Audit
from app.backup.dump import dumped
from app.backup.folder import MANIFEST, SNAPSHOT, BackupError, BackupFolder, Line, Snapshot
from app.category_settings import SETTINGS
from app.database import clock
from app.database.engine import Database, shown
from app.database.tables import inspections
from app.history import identity
from app.history.pictures import Pictures
from app.settings import Settings
from flows.fastflow import models_folder
from flows.fastflow.atomic_files import temporary_directory
from flows.fastflow.plain_files import FileError, file_hashes

_COLUMNS = inspections.columns
_ROWS: Final = 1000
_NAMED: Final = 100  # files that are missing, and named one by one
_MAPS: Final = "history/maps/"


@dataclass(frozen=True)
class Created:
    """A snapshot that was taken: its name, what it says, and how many bytes no earlier one had."""

    name: str
    snapshot: Snapshot
    copied: int


def create(settings: Settings, folder: BackupFolder) -> Created:
    """Take a snapshot.

    Args:
        settings: of the service: history, database and models matter.
        folder: where to; made if absent.

    Raises:
        BackupError: there is nothing to copy, or it cannot be copied. No half of a snapshot is left.
        DatabaseError: the database cannot be used, or another version of FlowGauge has made it.
        OSError: a folder cannot be read or written.
    """
    history = settings.history.absolute()
    if not settings.has_database:
        raise BackupError(f"there is no history in {history}; FLOWGAUGE_HISTORY or --history names it")
    if not settings.models.is_dir():
        raise BackupError(
            f"there is no models folder {settings.models.absolute()}; FLOWGAUGE_MODELS or --models names it"
        )
    if history == folder.path or history in folder.path.parents:
        raise BackupError("a backup inside the history would be lost with it: name a folder elsewhere")
    database = Database(settings.database_url)
    try:
        database.prepare()
        if identity.of(database) is None:
            raise BackupError(
                f"{shown(database.engine.url)} was never used by a server: an empty snapshot would stand for "
                "the history. Set FLOWGAUGE_HISTORY and FLOWGAUGE_DATABASE as for the server"
            )
        folder.create()
        with folder.locked():
            created = _Creation(settings, folder, database).run()
        Audit(database).write(COMMAND_LINE, "backup.create", created.name, "done", {"copied": created.copied})
    finally:
        database.close()
    return created


class _Creation:
    """One snapshot while it is taken."""

    def __init__(self, settings: Settings, folder: BackupFolder, database: Database) -> None:
        self._history = settings.history.absolute()
        self._pictures = Pictures(self._history)
        self._models = settings.models.absolute()
        self._folder = folder
        self._database = database
        self._copied = 0
        self._missing: list[str] = []
        self._missing_count = 0

    def run(self) -> Created:
        at_ms = clock.now_ms()
        with temporary_directory(self._folder.snapshots) as staging:
            with (staging / MANIFEST).open("w", encoding="utf-8", newline="\n") as manifest:
                _write(manifest, self._journal_lines())
                copy = staging / "database"
                with dumped(self._database, copy) as connection:
                    count = connection.scalar(select(func.count()).select_from(inspections))
                    _write(manifest, self._picture_lines(connection))
                    _write(manifest, self._map_lines(connection))
                _write(manifest, [self._line(copy, "database")])
                copy.unlink()
                models: dict[str, list[str]] = {}
                _write(manifest, self._model_lines(models))
            snapshot = Snapshot(
                format=1,
                created=clock.iso(at_ms),
                flowgauge=version("flowgauge"),
                database="sqlite" if self._database.is_sqlite else "postgresql",
                inspections=count or 0,
                models=models,
                missing=self._missing,
                missing_count=self._missing_count,
                manifest_sha256=file_hashes([staging / MANIFEST])[0],
            )
            (staging / SNAPSHOT).write_text(snapshot.model_dump_json(indent=1), encoding="utf-8")
            # Losing power must not leave a snapshot that names files which never reached the disk.
            os.sync()
            while (place := self._folder.snapshots / _name(at_ms)).exists():
                at_ms += 1
            staging.rename(place)
        return Created(place.name, snapshot, self._copied)

    def _line(self, source: Path, path: str) -> Line:
        """Copy a file; its line of the manifest."""
        sha256, copied = self._folder.add(source)
        self._copied += copied
        return Line(sha256, path)

    def _journal_lines(self) -> Iterator[Line]:
        journal = self._history / "journal"
        # The damaged ones last: what is set aside meanwhile is among them.
        for path in (*sorted(journal.glob("*.journal")), *sorted(journal.glob("*.damaged"))):
            try:
                yield self._line(path, f"history/journal/{path.name}")
            except FileNotFoundError:  # filed meanwhile
                continue

    def _picture_lines(self, connection: Connection) -> Iterator[Line]:
        query = (
            select(_COLUMNS.image_sha256, _COLUMNS.image_bytes)
            .where(_COLUMNS.has_pictures)
            .distinct()
            .order_by(_COLUMNS.image_sha256)
        )
        for row in connection.execution_options(yield_per=_ROWS).execute(query):
            sha256, size = row.image_sha256, row.image_bytes
            source = self._pictures.picture_path(sha256)
            line = self._immutable(source, f"history/pictures/{sha256[:2]}/{sha256}", size, sha256)
            if line is not None and line.sha256 == sha256:
                yield line
            else:
                self._tell_missing(f"the image {sha256}", _COLUMNS.image_sha256 == sha256)

    def _map_lines(self, connection: Connection) -> Iterator[Line]:
        known = _known_maps(self._folder)
        query = select(_COLUMNS.id, _COLUMNS.map_bytes).where(_COLUMNS.has_pictures).order_by(_COLUMNS.id)
        for row in connection.execution_options(yield_per=_ROWS).execute(query):
            path = f"{_MAPS}{row.id[-2:]}/{row.id}.npy"
            line = self._immutable(self._pictures.map_path(row.id), path, row.map_bytes, known.get(path))
            if line is not None:
                yield line
            else:
                self._tell_missing(f"the map of inspection {row.id}", _COLUMNS.id == row.id)

    def _immutable(self, source: Path, path: str, size: int, sha256: str | None) -> Line | None:
        """Copy a file of the history that never changes, unless its bytes are there already.

        Args:
            source: the file.
            path: in the manifest.
            size: that it must have.
            sha256: of its bytes, where it is known.

        Returns:
            Its line; None where it is missing, cut off or unreadable, and no snapshot has it.
        """
        if sha256 is not None and self._folder.object_path(sha256).exists():
            return Line(sha256, path)
        try:
            return self._line(source, path) if source.stat().st_size == size else None
        except FileError:
            return None
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EIO):
                raise
            return None

    def _tell_missing(self, what: str, condition: ColumnElement[bool]) -> None:
        """Count a file as missing, unless retention has removed it meanwhile."""
        with self._database.read() as live:
            if live.scalar(select(_COLUMNS.id).where(condition, _COLUMNS.has_pictures).limit(1)) is None:
                return
        self._missing_count += 1
        if len(self._missing) < _NAMED:
            self._missing.append(f"{what} is missing or damaged in the history")

    def _model_lines(self, found: dict[str, list[str]]) -> Iterator[Line]:
        """Copy the models, and add their versions to `found`."""
        for category in models_folder.categories(self._models):
            folder = self._models / category
            # Before the versions: the one that is active then is there.
            yield from self._existing(folder / models_folder.ACTIVE, folder / SETTINGS)
            found[category] = []
            for name in models_folder.versions(self._models, category):
                version_folder = folder / name
                lines = list(self._existing(*sorted(version_folder.rglob("*"))))
                if not version_folder.is_dir():  # deleted meanwhile
                    continue
                found[category].append(name)
                yield from lines
                yield from self._existing(*models_folder.renewals_of(version_folder).glob("*.json"))
        backbones = self._models / models_folder.BACKBONES
        yield from self._existing(*sorted(backbones.glob("[!.]*")))

    def _existing(self, *paths: Path) -> Iterator[Line]:
        """Copy those of some paths of the models folder that are files, or lead to one."""
        for path in paths:
            try:
                if path.is_file():
                    relative = path.relative_to(self._models).as_posix()
                    yield self._line(path.resolve(), f"models/{relative}")
            except FileNotFoundError:  # deleted meanwhile
                continue


def _known_maps(folder: BackupFolder) -> dict[str, str]:
    """The sha256 of each map in the newest snapshot, by its path: known maps are not read again."""
    try:
        lines = itertools.chain.from_iterable(folder.lines(name) for name in folder.names()[-1:])
        return {line.path: line.sha256 for line in lines if line.path.startswith(_MAPS)}
    except BackupError:  # a damaged one: all maps are read again
        return {}


def _write(manifest: TextIO, lines: Iterator[Line] | list[Line]) -> None:
    manifest.writelines(f"{sha256}  {path}\n" for sha256, path in lines)


def _name(at_ms: int) -> str:
    """A snapshot's name, such as 20261125T011500123Z."""
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    return f"{moment:%Y%m%dT%H%M%S}{at_ms % 1000:03}Z"
