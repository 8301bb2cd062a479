"""Restoring a snapshot into an empty history.

A folder `.restoring` is created first, and the database comes last. An existing `.restoring` means that a
restore was interrupted; the next one overwrites its files.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import Timeout

from app.auth.audit import Audit
from app.auth.permissions import COMMAND_LINE
from app.backup.dump import load_postgresql
from app.backup.folder import BackupError, BackupFolder, require_own_files
from app.database.engine import Database, parse_url, redact_url
from app.history.history import folder_lock
from app.settings import Settings

_MARKER: Final = ".restoring"


def restore_snapshot(settings: Settings, folder: BackupFolder, name: str) -> bool:
    """Restore a snapshot.

    Args:
        settings: of the service, which must be stopped; history, database and models are used. History and
            database must be empty. A models folder that is not empty stays unchanged.

    Returns:
        True if the models were restored.

    Raises:
        BackupError: the snapshot is damaged, the history is not empty or in use, or the database is of
            another kind.
        DatabaseError: the database cannot be used.
        OSError: the disk is full.
    """
    require_own_files(settings)
    history, models = settings.history.absolute(), settings.models.absolute()
    with folder.locked(), _locked(history):
        _require_empty_database(settings.database_url, folder.snapshot(name).database)
        if not _is_free(history):
            raise BackupError(
                f"the history {history} is not empty. Set FLOWGAUGE_HISTORY or --history to a new folder, "
                "and use that folder for the service, too"
            )
        has_models = _is_free(models)
        roots = {"history": history} | ({"models": models} if has_models else {})
        for root in roots.values():
            (root / _MARKER).mkdir(parents=True, exist_ok=True)
        database = history / _MARKER / "database"
        for line in folder.lines(name):
            top, _, path = line.path.partition("/")
            if top == "database":
                folder.extract(line, database)
            elif top in roots:
                folder.extract(line, roots[top] / path)
        # Before the database: once it is in place, a server may use the models.
        if has_models:
            (models / _MARKER).rmdir()
        os.sync()
        _fill_database(settings.database_url, database)
        shutil.rmtree(history / _MARKER)
    return has_models


def _require_empty_database(database_url: str, kind: str) -> None:
    """Require an empty database of the snapshot's kind.

    Raises:
        BackupError: it is not empty, or of another kind.
    """
    url = parse_url(database_url)
    is_sqlite = url.drivername == "sqlite"
    if is_sqlite != (kind == "sqlite"):
        raise BackupError(
            f"the snapshot holds a {kind} database and cannot be restored into another kind: set "
            "FLOWGAUGE_DATABASE accordingly"
        )
    if is_sqlite:  # not opened, which would create the file
        taken = Path(url.database or "").exists()
    else:
        database = Database(database_url)
        taken = database.revision is not None
        database.close()
    if taken:
        raise BackupError(f"the database {redact_url(url)} is not empty: set FLOWGAUGE_DATABASE to a new one")


def _fill_database(database_url: str, source: Path) -> None:
    """Put the snapshot's database in place, with the tables of this version of FlowGauge."""
    url = parse_url(database_url)
    is_sqlite = url.drivername == "sqlite"
    database = Database(f"sqlite:///{source}" if is_sqlite else database_url)
    try:
        if not is_sqlite:
            load_postgresql(database, source)
        database.upgrade()
        Audit(database).write(COMMAND_LINE, "backup.restore", redact_url(url), "done")
    finally:
        database.close()
    if is_sqlite:
        target = Path(url.database or "")
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        shutil.move(source, part)
        part.replace(target)


@contextmanager
def _locked(history: Path) -> Iterator[None]:
    """Hold the lock of a history, so that no server starts on it; creates a missing folder."""
    history.mkdir(parents=True, exist_ok=True)
    try:
        with folder_lock(history).acquire(timeout=0):
            yield
    except Timeout as error:
        raise BackupError(f"a server uses the history {history}: stop it first") from error


def _is_free(folder: Path) -> bool:
    """Return True if a folder holds nothing but a lock or the files of an interrupted restore."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return names <= {"lock"} or _MARKER in names
