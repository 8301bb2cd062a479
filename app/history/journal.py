"""The journal: what has been answered and is not in the database yet, in files of records.

A record is written before its inspection is answered, so a process that is killed loses nothing: the files
are read again at the next start. They are written, not synced; loss of power is outside the promise.
"""

import logging
import os
import re
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.free_disk import SPARE_BYTES, free_bytes
from app.history.record import DamagedRecord, Record, TornRecord

logger = logging.getLogger("flowgauge.history")

_SEGMENT_NAME: Final = re.compile(r"[0-9]{12}\.journal")
# What has a number: segments, and what was set aside of them.
_NUMBERED: Final = re.compile(r"([0-9]{12})(?:\.journal|-[0-9]{12}\.damaged)")

SEGMENT_BYTES: Final = 32 * 1024 * 1024


class JournalFull(Exception):  # noqa: N818  (a state, which may pass)
    """The journal has reached its limit, or the disk takes no more. Nothing was written."""


@dataclass
class _Segment:
    """A file of records: `size` bytes of whole ones, of which the first `filed` are in the database."""

    path: Path
    size: int
    filed: int = 0


class Journal:
    """The journal of one folder. One thread appends, another one reads and drops; any may ask for room.

    Args:
        folder: of the segments; made if absent.
        max_bytes: records that may wait, together.
        segment_bytes: a segment is closed when it has reached so many.

    Raises:
        OSError: the folder cannot be used.
    """

    def __init__(self, folder: Path, max_bytes: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        left = sorted(path for path in folder.iterdir() if _SEGMENT_NAME.fullmatch(path.name))
        self._segments = deque(_Segment(path, path.stat().st_size) for path in left)
        # Never a number that damage was kept under, or that could be overwritten.
        numbers = [int(found[1]) for path in folder.iterdir() if (found := _NUMBERED.fullmatch(path.name))]
        self._next = max(numbers, default=0) + 1
        # Positions in all that was ever appended, in bytes. Read without a lock.
        self.appended = sum(segment.size for segment in self._segments)
        self.dropped = 0
        self.refused = False  # whether the disk took nothing of the last record; expect_room does not tell
        # The last segment, open for appending; one that an earlier process has left never is.
        self._file: int | None = None
        self._writing = threading.Lock()  # held while the file is written, begun or ended
        self._lock = threading.Lock()  # held for moments, for the numbers

    @property
    def backlog(self) -> int:
        """Bytes of records that wait."""
        return self.appended - self.dropped

    def expect_room(self, size: int) -> None:
        """Raise JournalFull unless so many bytes more may wait."""
        if self.backlog + size > self._max_bytes:
            raise JournalFull(f"{self.backlog} bytes wait to be filed, the limit is {self._max_bytes}")
        try:
            free = free_bytes(self._folder)
        except OSError as error:
            raise JournalFull("the journal's folder cannot be used") from error
        if free < size + SPARE_BYTES:
            raise JournalFull("the disk has no room to spare")

    def append(self, record: Record) -> int:
        """Write a record; it survives this process from when this returns.

        Returns:
            The position of its end: it is filed when `dropped` is there.

        Raises:
            JournalFull: nothing was written.
        """
        self.expect_room(record.size)
        with self._writing:
            try:
                file = self._file if self._file is not None else self._begin()
                _write(file, record.encode())
            except OSError as error:
                self.refused = True
                self._take_back()
                raise JournalFull("the disk takes no more") from error
            self.refused = False
            with self._lock:
                segment = self._segments[-1]
                segment.size += record.size
                self.appended += record.size
                position = self.appended
            if segment.size >= self._segment_bytes:
                self._end()
        return position

    def read(self, max_bytes: int, max_records: int) -> list[Record]:
        """The records that wait longest: one at least, if any waits, and not many more bytes than wanted.

        A record that was not finished is left out: it was never answered. A damaged one is an error in the
        log, and it and what follows in its file are kept in a file of their own.

        Raises:
            OSError: the disk does not read; another attempt can help.
        """
        while True:
            with self._lock:
                if not self._segments:
                    return []
                segment = self._segments[0]
                begin, end = segment.filed, segment.size
            if begin == end:
                if not self._remove(segment):
                    return []
                continue
            records: list[Record] = []
            position = begin
            with segment.path.open("rb") as file:
                file.seek(begin)
                while position < end and position - begin < max_bytes and len(records) < max_records:
                    try:
                        record = Record.read(file, end - position)
                    except (TornRecord, DamagedRecord) as error:
                        if not records:
                            self._give_up(segment, torn=isinstance(error, TornRecord))
                        break
                    records.append(record)
                    position += record.size
            if records:
                return records

    def drop(self, records: Sequence[Record]) -> None:
        """Forget what `read` has returned, for it is filed."""
        with self._lock:
            segment = self._segments[0]
            size = sum(record.size for record in records)
            segment.filed += size
            self.dropped += size
        self._remove(segment)

    def set_aside(self, record: Record) -> Path:
        """Forget the first record that `read` has returned, for it can never be filed.

        Returns:
            The file that it is kept in, whole.
        """
        segment = self._segments[0]
        with segment.path.open("rb") as file:
            file.seek(segment.filed)
            kept = _keep(segment, file.read(record.size))
        self.drop([record])
        return kept

    def close(self) -> None:
        """Close the file; what waits stays for the next start."""
        with self._writing:
            self._end()

    def _remove(self, segment: _Segment) -> bool:
        """Remove the first segment if nothing waits in it and nothing is about to."""
        with self._writing:
            with self._lock:
                idle = self._file is not None and len(self._segments) == 1 and not segment.size
                if segment.filed < segment.size or idle:
                    return False
                self._segments.popleft()
                last = not self._segments
            if last:
                self._end()
        segment.path.unlink()
        return True

    def _give_up(self, segment: _Segment, *, torn: bool) -> None:
        """Go on behind the first segment, of whose rest nothing can be filed."""
        with self._writing:
            if self._segments[-1] is segment:  # what is appended goes on in another file
                self._end()
        size = segment.size - segment.filed
        if torn:
            logger.warning(
                "the last record of %s, %d bytes, is unfinished and was not answered: left out",
                segment.path,
                size,
            )
        else:
            with segment.path.open("rb") as file:
                file.seek(segment.filed)
                kept = _keep(segment, file.read())
            logger.error("%d bytes of the journal are damaged and cannot be filed; kept as %s", size, kept)
        with self._lock:
            self.dropped += size
            segment.filed = segment.size

    def _begin(self) -> int:
        path = self._folder / f"{self._next:012}.journal"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._next += 1
        with self._lock:
            self._segments.append(_Segment(path, 0))
        return self._file

    def _take_back(self) -> None:
        """Cut off what was written of a record; where even that fails, the next goes into another file."""
        if self._file is None:
            return
        try:
            os.ftruncate(self._file, self._segments[-1].size)
        except OSError:
            self._end()

    def _end(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                os.close(file)
            except OSError:  # as shares tell late what was lost; the descriptor is gone all the same
                logger.exception("the journal's file could not be closed")


def _keep(segment: _Segment, data: bytes) -> Path:
    """Keep what cannot be filed; as long as it is there, no other segment gets the number."""
    kept = segment.path.with_name(f"{segment.path.stem}-{segment.filed:012}.damaged")
    kept.write_bytes(data)
    return kept


def _write(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]
