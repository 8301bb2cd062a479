"""Bringing a snapshot back into an empty place.

Files are copied into a folder `.restoring`, renamed from there, and the database comes last. So where there
is `.restoring` and no database, a restore was broken off: the next one clears what that has left.
"""

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
        has_models: whether the models came back; not where the models folder has something already.
    """

    snapshot: Snapshot
    has_models: bool


def restore(settings: Settings, folder: BackupFolder, name: str) -> Restored:
    """Bring a snapshot back.

    Args:
        settings: of the service, which must not run: history, database and models matter. History and
            database must be empty; a models folder that is not empty is left as it is.
        folder: the backup.
        name: of the snapshot.

    Raises:
        BackupError: the snapshot is damaged, the place not empty or in use, or of the other kind of database.
        DatabaseError: the database cannot be used.
        OSError: the disk takes no more.
    """
    history, models = settings.history.absolute(), settings.models.absolute()
    with folder.locked(), _locked(history):
        snapshot = folder.snapshot(name)
        _require_empty_database(settings.database_url, snapshot)
        if not _is_free(history):
            raise BackupError(
                f"the history {history} is not empty. Name a new folder by FLOWGAUGE_HISTORY or --history, "
                "and let the service use that"
            )
        has_models = _is_free(models)
        roots = {"history": history} | ({"models": models} if has_models else {})
        for root in roots.values():
            _clear(root)
            (root / _STAGING).mkdir(parents=True)
        database = history / _STAGING / _DATABASE
        for line in folder.lines(name):
            top, _, path = line.path.partition("/")
            if line.path == _DATABASE:
                _copy(folder, line, database)
            elif top in roots:
                _copy(folder, line, roots[top] / _STAGING / path)
        for root in roots.values():
            for source in (root / _STAGING).iterdir():
                if source != database:
                    source.rename(root / source.name)
        # Before the database: a marker that stays would have the models of a service in use cleared.
        shutil.rmtree(models / _STAGING, ignore_errors=True)
        os.sync()
        _fill_database(settings.database_url, database)
        shutil.rmtree(history / _STAGING)
    return Restored(snapshot, has_models)


def _require_empty_database(database_url: str, snapshot: Snapshot) -> None:
    """Require that the database has no tables and is of the snapshot's kind.

    Raises:
        BackupError: it is not.
    """
    url = read_url(database_url)
    is_sqlite = url.drivername == "sqlite"
    if is_sqlite != (snapshot.database == "sqlite"):
        raise BackupError(
            f"the snapshot is of a history in {snapshot.database}, and can only be restored into one: "
            "set FLOWGAUGE_DATABASE accordingly"
        )
    if is_sqlite:  # not opened: that would make the file
        taken = Path(url.database or "").exists()
    else:
        database = Database(database_url)
        taken = database.revision is not None
        database.close()
    if taken:
        raise BackupError(f"the database {shown(url)} is not empty: name a new one")


def _fill_database(database_url: str, source: Path) -> None:
    """Put the snapshot's database in place, with the tables of this version of FlowGauge."""
    url = read_url(database_url)
    if url.drivername != "sqlite":
        database = Database(database_url)
        load_postgresql(database, source)
        _finish(database)
        return
    _finish(Database(URL.create("sqlite", database=str(source)).render_as_string()))
    target = Path(url.database or "")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    shutil.move(source, part)
    part.replace(target)


def _finish(database: Database) -> None:
    try:
        database.upgrade()
        Audit(database).write(COMMAND_LINE, "backup.restore", shown(database.engine.url), "done")
    finally:
        database.close()


def _copy(folder: BackupFolder, line: Line, target: Path) -> None:
    source = folder.object_path(line.sha256)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with source.open("rb") as file, target.open("wb") as copy:
            is_whole = copy_hashed(file, copy)[0] == line.sha256
    except FileNotFoundError:
        is_whole = False
    if not is_whole:
        raise BackupError(
            f"{line.path} is missing or damaged in the backup: {source}. `flowgauge backup verify` names all "
            "such files. Restore another snapshot"
        )


@contextmanager
def _locked(history: Path) -> Iterator[None]:
    """Hold the lock of a history, made if absent, so that no server starts on it meanwhile."""
    history.mkdir(parents=True, exist_ok=True)
    try:
        with folder_lock(history).acquire(timeout=0):
            yield
    except Timeout as error:
        raise BackupError(f"a server uses the history {history}: stop it first") from error


def _is_free(folder: Path) -> bool:
    """Whether a folder has nothing, but for a lock and what a restore that was broken off has left."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return names <= {"lock"} or _STAGING in names


def _clear(folder: Path) -> None:
    """Delete what a restore that was broken off has left; the marker goes last."""
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir(), key=lambda path: path.name == _STAGING):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "lock":
            path.unlink()
