"""What the watcher remembers of a folder over restarts: one SQLite file in the folder's `.flowgauge`."""

import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from .folder import Stamp

OWN: Final = ".flowgauge"
_TABLES: Final = """
BEGIN EXCLUSIVE;
CREATE TABLE IF NOT EXISTS folder (identity TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS done (name BLOB PRIMARY KEY, stamp TEXT NOT NULL);
COMMIT;
"""


class LedgerError(OSError):
    """The ledger cannot be used; the message names the file and the reason."""


class Ledger:
    """The ledger of one folder, locked for this process; the system lets go of it however the process ends.

    The table `folder` tells this folder from all others, which is part of the idempotency keys; `done` has
    the images that are dealt with and stay where they are. Those that are to be moved and are not dealt with
    yet lie in `.flowgauge/taken`, each with its name below a folder of its own.

    Args:
        root: the watched folder.

    Attributes:
        identity: of the folder.
        taken: the folder of images that were taken.

    Raises:
        LedgerError: another watcher is at work in the folder, or the file cannot be used.
        OSError: the folder is not there, or cannot be written to.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / OWN / "watch.sqlite"
        self.taken = root / OWN / "taken"
        self._path.parent.mkdir(exist_ok=True)  # never the root, whose disk may be away
        self.taken.mkdir(exist_ok=True)
        with self._errors():
            # Without a statement in progress SQLite commits by itself, on the disk when it returns.
            self._database = sqlite3.connect(
                self._path, timeout=1, isolation_level=None, check_same_thread=False
            )
        try:
            with self._errors():
                self._database.execute("PRAGMA locking_mode=EXCLUSIVE")
                self._database.execute("PRAGMA synchronous=FULL")
                self._database.executescript(_TABLES)
                only = "INSERT INTO folder SELECT ? WHERE NOT EXISTS (SELECT * FROM folder)"
                self._database.execute(only, (uuid.uuid4().hex,))
                [self.identity] = self._database.execute("SELECT identity FROM folder").fetchone()
                rows = self._database.execute("SELECT name, stamp FROM done")
                self._done = {os.fsdecode(name): Stamp(*map(int, stamp.split())) for name, stamp in rows}
            status = self._path.stat()
        except BaseException:
            self.close()
            raise
        self._place: tuple[int, int] | None = (status.st_dev, status.st_ino)

    @property
    def is_in_place(self) -> bool:
        """Whether this is still the folder's ledger: a share may have been mounted over the folder."""
        try:
            status = self._path.stat()
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._place and self.taken.is_dir()

    def close(self) -> None:
        """Let go of it."""
        self._place = None
        self._database.close()

    def is_done(self, name: str, stamp: Stamp) -> bool:
        """Whether this very state of an image that stays where it is was dealt with."""
        return self._done.get(name) == stamp

    def finish(self, name: str, stamp: Stamp) -> None:
        """Remember that an image that stays where it is was dealt with."""
        row = os.fsencode(name), " ".join(map(str, stamp))
        with self._errors():
            self._database.execute("INSERT OR REPLACE INTO done VALUES (?, ?)", row)
        self._done[name] = stamp

    def take(self, name: str, source: Path) -> Path:
        """Rename an image out of the camera's reach; where it is then.

        Raises:
            OSError: it cannot be renamed, and stays where it is.
        """
        target = self.taken / uuid.uuid4().hex / name
        target.parent.mkdir(parents=True)
        try:
            source.rename(target)
        except OSError:
            self.release(target)
            raise
        return target

    def release(self, taken: Path) -> None:
        """Remove the folders of an image that was taken and is dealt with; never one that is not empty."""
        with suppress(OSError):
            for folder in taken.parents:
                if folder == self.taken:
                    return
                folder.rmdir()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                raise LedgerError(
                    f"{self._path}: another watcher is at work in this folder; give each its own folder"
                ) from error
            raise LedgerError(f"{self._path} cannot be used: {error}") from error
