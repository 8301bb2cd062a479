"""Memory of a watcher over restarts: one SQLite file in the folder's `.flowgauge`."""

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
    """Ledger of one folder, locked by this process until it ends.

    The table `folder` holds the folder's identity, a part of the idempotency keys. The table `done` lists
    finished images that stay in place. Images that are to be moved and are not finished lie in
    `.flowgauge/taken`, each in a folder of its own.

    Attributes:
        identity: of the folder.
        taken: folder of the taken images.

    Raises:
        LedgerError: another watcher uses the folder, or the file cannot be used.
        OSError: the folder is missing, or cannot be written to.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / OWN / "watch.sqlite"
        self.taken = root / OWN / "taken"
        self._path.parent.mkdir(exist_ok=True)  # never the root, whose disk may be away
        self.taken.mkdir(exist_ok=True)
        with self._errors():
            # Autocommit: each statement is on the disk when it returns.
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
        """True if this is still the folder's ledger: a share may have been mounted over it."""
        try:
            status = self._path.stat()
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._place and self.taken.is_dir()

    def close(self) -> None:
        """Close and unlock the file."""
        self._place = None
        self._database.close()

    def is_done(self, name: str, stamp: Stamp) -> bool:
        """Check if this state of an image that stays in place is finished."""
        return self._done.get(name) == stamp

    def finish(self, name: str, stamp: Stamp) -> None:
        """Record that an image that stays in place is finished."""
        row = os.fsencode(name), " ".join(map(str, stamp))
        with self._errors():
            self._database.execute("INSERT OR REPLACE INTO done VALUES (?, ?)", row)
        self._done[name] = stamp

    def take(self, name: str, source: Path) -> Path:
        """Move an image out of the camera's reach, and return its new path.

        Raises:
            OSError: it cannot be renamed, and stays in place.
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
        """Remove the folders of a finished image, if they are empty."""
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
                    f"{self._path}: another watcher uses this folder; give each its own folder"
                ) from error
            raise LedgerError(f"{self._path} cannot be used: {error}") from error
