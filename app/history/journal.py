"""The journal: files of records that are answered and not yet in the database.

A record is written before its inspection is answered, so a killed process loses nothing: the next start reads
the files. They are not synced; a loss of power can lose the last records.
"""

import logging
import os
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Final

from app.history.journal_record import JournalRecord, decode_records
from app.registry.free_disk import MIN_FREE_BYTES, free_bytes

logger = logging.getLogger("flowgauge.history")

# Size of a full file, which is read and written to the database as a whole. Small files keep waiting short.
FILE_BYTES: Final = 16 * 1024 * 1024


class JournalFull(Exception):  # noqa: N818  (a temporary state)
    """The journal has reached its limit, or the disk is full. Nothing was written."""


class Journal:
    """The journal of one folder.

    One thread appends, another one reads and drops; any thread may call `require_room`. Reading ends the
    current file and begins the next one, so that appending need not create files.

    Attributes:
        appended: bytes of all records since the start, including those found then.
        dropped: bytes of the records that no longer wait.
        refused: true if the disk did not take the last record; `require_room` does not tell.

    Args:
        folder: folder of the files; created if absent.
        max_bytes: total size of the records that may wait.
        file_bytes: size of a full file.
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
            else:  # a killed process had just created it
                path.unlink()
        # Never reuse the number of a damaged file that was kept.
        self._number = max((int(path.stem) for path in folder.iterdir() if path.stem.isdigit()), default=0)
        self.appended = sum(size for _, size in self._waiting)
        self.dropped = 0
        self.refused = False
        self._lock = threading.Lock()  # guards the current file
        self._begin()

    @property
    def backlog(self) -> int:
        """Bytes of the waiting records."""
        return self.appended - self.dropped

    def require_room(self, size: int) -> None:
        """Raise JournalFull unless this many more bytes may wait."""
        if self.backlog + size > self._max_bytes:
            raise JournalFull(f"{self.backlog} bytes wait to be filed, the limit is {self._max_bytes}")
        try:
            free = free_bytes(self._folder)
        except OSError as error:
            raise JournalFull("its folder cannot be used") from error
        if free < size + MIN_FREE_BYTES:
            raise JournalFull("the disk has no room to spare")

    def append(self, record: JournalRecord) -> None:
        """Write a record; after the return it survives a crash of this process.

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
                with suppress(OSError):  # if even that fails, the next record overwrites it
                    os.ftruncate(self._file, self._size)
                raise JournalFull("the disk takes no more") from error
            self.refused = False
            self._size += len(data)
            self.appended += len(data)
            if self._size >= self._file_bytes:
                with suppress(OSError):  # keep the current file
                    self._begin_next_file()

    def read(self) -> list[JournalRecord]:
        """Read the records of the oldest file; empty if no record waits.

        An unfinished record is skipped: it was never answered. A damaged record is logged; it and the rest of
        its file are kept in a separate file.

        Raises:
            OSError: the disk fails or is full; another attempt can help.
        """
        while True:
            if not self._waiting:
                with self._lock:
                    if not self._size:
                        return []
                    self._begin_next_file()
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
        """Delete the file that `read` returned, after its records are in the database."""
        path, size = self._waiting[0]
        path.unlink()
        self._waiting.popleft()
        self.dropped += size

    def set_aside(self, record: JournalRecord) -> Path:
        """Keep a record that the database refuses in a file of its own; return the path."""
        kept = self._folder / f"{record.row['id']}.damaged"
        kept.write_bytes(record.encode())
        return kept

    def close(self) -> None:
        """Close the current file; waiting records stay for the next start."""
        os.close(self._file)
        if not self._size:
            self._path.unlink()

    def _begin_next_file(self) -> None:
        """End the current file and begin another one."""
        ended = self._file, self._path, self._size
        self._begin()
        self._waiting.append(ended[1:])
        os.close(ended[0])  # last: network shares may report lost writes here

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
