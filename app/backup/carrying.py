"""Taking along what waits in the journal of the history that was used before: it is nowhere else."""

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import Timeout

from app.backup.copying import copy_anew
from app.backup.folder import JOURNAL, BackupError
from app.history.history import folder_lock
from app.history.journal import NUMBERED


@contextmanager
def waiting_in(journal: Path, restored: Path) -> Iterator[list[Path]]:
    """The files of a journal, oldest first, while no server adds to them.

    Args:
        journal: the folder.
        restored: the history that they are for, locked.

    Raises:
        BackupError: it is no journal, a server uses it, or it is that history's.
        OSError: it cannot be read.
    """
    history = journal.resolve().parent
    if history == restored.resolve():
        raise BackupError(f"{journal} is in the history that is restored: name that of the one before")
    lock = folder_lock(history)
    try:
        # A server that runs has made it, and in a folder that is none nothing is made.
        if (history / "lock").exists():
            lock.acquire(timeout=0)
    except Timeout as error:
        raise BackupError(f"a server uses the journal {journal}: stop it first") from error
    except OSError as error:
        # As on a disk that became read-only since it fails: no server uses such a one.
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
    try:
        there = sorted(journal.iterdir()) if journal.is_dir() else None
        files = [path for path in there or () if NUMBERED.fullmatch(path.name)]
        if there is None or (there and not files):
            raise BackupError(
                f"{journal} is no journal: name the folder {JOURNAL!r} of the history that was used before"
            )
        yield files
    finally:
        lock.release()


def carry(files: Iterable[Path], journal: Path, after: int) -> int:
    """Copy files of another journal into one that has files with the same numbers, maybe.

    What is in the database already when they are read is not filed twice.

    Args:
        files: as `waiting_in` says.
        journal: where to.
        after: the highest number that is taken there; theirs follow in the same order, whenever it is done.

    Returns:
        Bytes that wait to be filed.

    Raises:
        FileError, OSError: as `copy_file`.
    """
    waiting = 0
    for path in files:
        copy_anew(path, journal / f"{after + number_of(path):012}{path.name[12:]}")
        waiting += path.stat().st_size if path.suffix == ".journal" else 0
    return waiting


def number_of(path: Path) -> int:
    """The number of a journal's file; 0 where it has none."""
    found = NUMBERED.fullmatch(path.name)
    return int(found[1]) if found else 0
