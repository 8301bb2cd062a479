"""Bringing a snapshot back into an empty place.

Files are copied into a folder `.restoring` and then renamed, and the database comes last. A restore that was
broken off while it copied is done again in the same place.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import Timeout
from sqlalchemy.engine import URL

from app.access import COMMAND_LINE
from app.audit import Audit
from app.backup.dump import load_postgresql
from app.backup.folder import BackupError, BackupFolder, Line, Snapshot, copy_hashed
from app.database.engine import Database, read_url, shown
from app.history.history import folder_lock
from app.settings import Settings

_STAGING: Final = ".restoring"
_DATABASE: Final = "database"


@dataclass(frozen=True)
class Restored:
    """What was brought back.

    Attributes:
        snapshot: what the snapshot says of itself.
        lost: files that the backup has lost, a sentence each.
        has_models: whether the models came back; not where the models folder has something already.
        waiting: bytes of another journal that wait in this one now.
    """

    snapshot: Snapshot
    lost: list[str]
    has_models: bool
    waiting: int


def restore(
    settings: Settings,
    folder: BackupFolder,
    name: str,
    journal: Path | None = None,
    *,
    incomplete: bool = False,
) -> Restored:
    """Bring a snapshot back.

    Args:
        settings: of the service, which must not run: history, database and models matter. History and
            database must be empty; a models folder that is not empty is left as it is.
        folder: the backup.
        name: of the snapshot.
        journal: of the history that was used before, whose inspections wait to be filed and come along.
        incomplete: whether files that the backup has lost are left out; never the database.

    Raises:
        BackupError: the snapshot is damaged, the place not empty or in use, or of the other kind of database.
        DatabaseError: the database cannot be used.
        OSError: the disk takes no more.
    """
    history, models = settings.history.absolute(), settings.models.absolute()
    with folder.locked(), _locked(history):
        snapshot = folder.snapshot(name)
        if not _is_empty(history):
            raise BackupError(
                f"the history {history} is not empty. Name a new folder by FLOWGAUGE_HISTORY or --history, "
                "and let the service use that"
            )
        target = _EmptyDatabase(settings, snapshot)
        journals = [] if journal is None else _journal_files(journal)
        has_models = _is_empty(models)
        copier = _Copier(folder, history, models if has_models else None, incomplete=incomplete)
        database = copier.copy(folder.lines(name))
        if database is None:
            raise BackupError(f"snapshot {name} has no database: it is damaged")
        waiting = copier.append_journal(journals)
        copier.move_into_place(database, target)
    return Restored(snapshot, copier.lost, has_models, waiting)


class _EmptyDatabase:
    """The database that settings name, which must have no tables.

    Raises:
        BackupError: it has, or it is of another kind than the snapshot's.
    """

    def __init__(self, settings: Settings, snapshot: Snapshot) -> None:
        self._url = settings.database_url
        url = read_url(self._url)
        is_sqlite = url.drivername == "sqlite"
        if is_sqlite != (snapshot.database == "sqlite"):
            raise BackupError(
                f"the snapshot is of a history in {snapshot.database}, and can only be restored into one: "
                "set FLOWGAUGE_DATABASE accordingly"
            )
        self._file = Path(url.database or "") if is_sqlite else None
        if self._file is not None:  # not opened: that would make the file
            taken = self._file.exists()
        else:
            database = Database(self._url)
            taken = database.revision is not None
            database.close()
        if taken:
            raise BackupError(
                f"the database {self._file or 'of FLOWGAUGE_DATABASE'} is not empty: name a new one"
            )

    def fill(self, source: Path) -> None:
        """Put the snapshot's database there, with the tables of this version of FlowGauge."""
        if self._file is None:
            database = Database(self._url)
            load_postgresql(database, source)
            _finish(database)
            return
        _finish(Database(URL.create("sqlite", database=str(source)).render_as_string()))
        self._file.parent.mkdir(parents=True, exist_ok=True)
        part = self._file.with_name(f".{self._file.name}.part")
        shutil.move(source, part)
        part.replace(self._file)


def _finish(database: Database) -> None:
    try:
        database.upgrade()
        Audit(database).write(COMMAND_LINE, "backup.restore", shown(database.engine.url), "done")
    finally:
        database.close()


class _Copier:
    """Copies a snapshot's files beside where they belong, then moves them there.

    Args:
        folder: the backup.
        history: the folder of the history, empty.
        models: that of the models, empty; None where models are not wanted.
        incomplete: whether files that the backup has lost are left out.
    """

    def __init__(self, folder: BackupFolder, history: Path, models: Path | None, *, incomplete: bool) -> None:
        self._folder = folder
        self._roots = {"history": history} | ({} if models is None else {"models": models})
        self._incomplete = incomplete
        self.lost: list[str] = []
        for root in self._roots.values():
            shutil.rmtree(root / _STAGING, ignore_errors=True)
            (root / _STAGING).mkdir(parents=True)

    def copy(self, lines: Iterator[Line]) -> Path | None:
        """Copy files; where the database's file lies then, None where there is none."""
        database = None
        for line in lines:
            root, _, path = line.path.partition("/")
            if line.path == _DATABASE:
                database = self._roots["history"] / _STAGING / _DATABASE
                self._copy(line, database, required=True)
            elif root in self._roots:
                self._copy(line, self._roots[root] / _STAGING / path)
        return database

    def append_journal(self, files: list[Path]) -> int:
        """Add files of another journal after those of the snapshot; returns how many bytes they have."""
        folder = self._roots["history"] / _STAGING / "journal"
        folder.mkdir(exist_ok=True)
        last = max((int(path.name[:12]) for path in folder.iterdir()), default=0)
        for number, path in enumerate(files, last + 1):
            shutil.copyfile(path, folder / f"{number:012}.journal")
        return sum(path.stat().st_size for path in files)

    def move_into_place(self, database: Path, target: _EmptyDatabase) -> None:
        """Rename what was copied; then fill the database."""
        for root in self._roots.values():
            for path in (root / _STAGING).iterdir():
                if path != database:
                    path.rename(root / path.name)
        target.fill(database)
        for root in self._roots.values():
            shutil.rmtree(root / _STAGING)
        os.sync()

    def _copy(self, line: Line, target: Path, *, required: bool = False) -> None:
        source = self._folder.object_path(line.sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        found = ""
        try:
            with source.open("rb") as file, target.open("wb") as copy:
                found, _ = copy_hashed(file, copy)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EIO):
                raise
        if found == line.sha256:
            return
        target.unlink(missing_ok=True)
        said = f"{line.path} is missing or damaged in the backup: {source}"
        if required or not self._incomplete:
            raise BackupError(
                f"{said}. `flowgauge backup verify` names all such files. Restore another snapshot"
                + ("" if required else ", or all else of this one by --incomplete")
            )
        self.lost.append(said)


@contextmanager
def _locked(history: Path) -> Iterator[None]:
    """Hold the lock of a history, made if absent, so that no server starts on it meanwhile."""
    history.mkdir(parents=True, exist_ok=True)
    try:
        with folder_lock(history).acquire(timeout=0):
            yield
    except Timeout as error:
        raise BackupError(f"a server uses the history {history}: stop it first") from error


def _is_empty(folder: Path) -> bool:
    """Whether a folder has nothing, but for a lock and what a restore that was broken off has left."""
    return not folder.is_dir() or all(path.name in ("lock", _STAGING) for path in folder.iterdir())


def _journal_files(journal: Path) -> list[Path]:
    """The files of a journal, oldest first.

    Raises:
        BackupError: it is no journal.
    """
    files = sorted(journal.glob("*.journal")) if journal.is_dir() else []
    if not files and (not journal.is_dir() or any(journal.iterdir())):
        raise BackupError(f"{journal} is no journal: name the folder `journal` of the history used before")
    return files
