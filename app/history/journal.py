"""The journal: what has been answered and is not in the database yet, in files of records.

A record is written before its inspection is answered, so a process that is killed loses nothing: the next
start reads the files. They are written, not synced; loss of power is outside the promise.
"""

import logging
import os
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Final

from app.history.journal_record import JournalRecord, decode_records
from app.registry.free_disk import SPARE_BYTES, free_bytes

logger = logging.getLogger("flowgauge.history")

# A file that has reached so many is read and filed as a whole: few enough that who waits for its first record
# does not wait long.
FILE_BYTES: Final = 16 * 1024 * 1024


class JournalFull(Exception):  # noqa: N818  (a state, which may pass)
    """The journal has reached its limit, or the disk takes no more. Nothing was written."""


class Journal:
    """The journal of one folder. One thread appends, another one reads and drops; any may ask for room.

    What is read is a file that nothing is appended to any more; so reading begins the next one, and appending
    need not wait for the disk to make a file.

    Attributes:
        appended: bytes of all records since the start, with those that were found then.
        dropped: how many of them wait no more, the oldest.
        refused: whether the disk did not take the last record; `require_room` does not tell.

    Args:
        folder: of the files; made if absent.
        max_bytes: records that may wait, together.
        file_bytes: a file that has reached so many gets no more.
    """

    def __init__(self, folder: Path, max_bytes: int, file_bytes: int = FILE_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._max_bytes = max_bytes
        self._file_bytes = file_bytes
        self._waiting: deque[tuple[Path, int]] = deque()
        for path in sorted(folder.glob("*.journal")):
            if size := path.stat().st_size:
                self._waiting.append((path, size))
            else:  # a process that was killed had just begun it
                path.unlink()
        # Never a number that damage was kept under, or that could be overwritten.
        self._number = max((int(path.stem) for path in folder.iterdir() if path.stem.isdigit()), default=0)
        self.appended = sum(size for _, size in self._waiting)
        self.dropped = 0
        self.refused = False
        self._lock = threading.Lock()  # of the file that is appended to
        self._begin()

    @property
    def backlog(self) -> int:
        """Bytes of records that wait."""
        return self.appended - self.dropped

    def require_room(self, size: int) -> None:
        """Raise JournalFull unless so many bytes more may wait."""
        if self.backlog + size > self._max_bytes:
            raise JournalFull(f"{self.backlog} bytes wait to be filed, the limit is {self._max_bytes}")
        try:
            free = free_bytes(self._folder)
        except OSError as error:
            raise JournalFull("its folder cannot be used") from error
        if free < size + SPARE_BYTES:
            raise JournalFull("the disk has no room to spare")

    def append(self, record: JournalRecord) -> None:
        """Write a record; it survives this process from when this returns.

        Raises:
            JournalFull: nothing was written.
        """
        data = record.encode()
        self.require_room(len(data))
        with self._lock:
            try:
                _write(self._file, data, self._size)
            except OSError as error:
                self.refused = True
                with suppress(OSError):  # where even that fails, the next record is written over it
                    os.ftruncate(self._file, self._size)
                raise JournalFull("the disk takes no more") from error
            self.refused = False
            self._size += len(data)
            self.appended += len(data)
            if self._size >= self._file_bytes:
                with suppress(OSError):  # the file goes on
                    self._next()

    def read(self) -> list[JournalRecord]:
        """Read the file that waits longest; empty if no record waits.

        A record that was not finished is left out: it was never answered. A damaged one is an error in the
        log, and it and what follows in its file are kept in a file of their own.

        Raises:
            OSError: the disk does not read, or takes no more; another attempt can help.
        """
        while True:
            if not self._waiting:
                with self._lock:
                    if not self._size:
                        return []
                    self._next()
            path, size = self._waiting[0]
            data = path.read_bytes()[:size]
            found = decode_records(data)
            if found.damaged:
                kept = path.with_suffix(".damaged")
                kept.write_bytes(data[found.size :])
                logger.error("%s is damaged; what cannot be filed is kept as %s", path, kept)
            elif found.size < size:
                logger.warning("the last record of %s is unfinished and was not answered: left out", path)
            if found.records:
                os.truncate(path, found.size)
                self.dropped += size - found.size
                self._waiting[0] = path, found.size
                return found.records
            self.drop()

    def drop(self) -> None:
        """Forget the file that `read` has read, for its records are filed."""
        path, size = self._waiting[0]
        path.unlink()
        self._waiting.popleft()
        self.dropped += size

    def set_aside(self, record: JournalRecord) -> Path:
        """Keep a record that can never be filed in a file of its own, and give that."""
        kept = self._folder / f"{record.row['id']}.damaged"
        kept.write_bytes(record.encode())
        return kept

    def close(self) -> None:
        """Close the file; what waits stays for the next start."""
        os.close(self._file)
        if not self._size:
            self._path.unlink()

    def _next(self) -> None:
        """End the file that is appended to, and begin another one."""
        ended = self._file, self._path, self._size
        self._begin()
        self._waiting.append(ended[1:])
        os.close(ended[0])  # last: shares may tell here what they have lost, and the rest is to be filed

    def _begin(self) -> None:
        path = self._folder / f"{self._number + 1:012}.journal"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._number += 1
        self._path, self._size = path, 0


def _write(file: int, data: bytes, position: int) -> None:
    if not os.fstat(file).st_nlink:
        raise FileNotFoundError("the journal's file was removed")
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, position)
        position += written
        rest = rest[written:]
