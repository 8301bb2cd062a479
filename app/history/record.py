"""A record of the journal: how an inspection stands in a file until it is in the database.

    record = mark (12 bytes), lengths of the three parts (3 x uint64), crc32 of mark and lengths, and of the
             parts (2 x uint32), the parts
    mark   = magic (4 bytes), and 8 random ones, the same for all records of a file
    parts  = the inspection's row (JSON), the picture as it was uploaded, the score map (.npy)

After damage the next record is found by its mark, which the file's beginning tells; where a bit of that has
turned, a later record does. Whoever uploads a picture does not know it, so nothing in a picture can be taken
for a record.
"""

import os
import struct
import zlib
from typing import BinaryIO, Final, NamedTuple

_MAGIC: Final = b"FGJ2"
MARK_BYTES: Final = len(_MAGIC) + 8
_LENGTHS: Final = struct.Struct("<QQQ")
_CRCS: Final = struct.Struct("<II")
_HEADER_BYTES: Final = MARK_BYTES + _LENGTHS.size + _CRCS.size


class NotARecord(Exception):  # noqa: N818
    """No record begins here: its end is missing (torn), or it is damaged."""

    def __init__(self, *, torn: bool) -> None:
        super().__init__()
        self.torn = torn


def new_mark() -> bytes:
    """A mark for the records of a file, which nobody can guess."""
    return _MAGIC + os.urandom(MARK_BYTES - len(_MAGIC))


class Record(NamedTuple):
    """An inspection as the journal keeps it: three parts of bytes."""

    row: bytes
    picture: bytes
    score_map: bytes

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return _HEADER_BYTES + sum(map(len, self))

    def encode(self, mark: bytes) -> bytes:
        """The record's bytes in a file with a mark."""
        return b"".join((self.encode_header(mark), *self))

    def encode_header(self, mark: bytes) -> bytes:
        """What stands before the parts."""
        lengths = _LENGTHS.pack(*map(len, self))
        crc = 0
        for part in self:
            crc = zlib.crc32(part, crc)
        return mark + lengths + _CRCS.pack(zlib.crc32(mark + lengths), crc)


def read_record(file: BinaryIO, mark: bytes, left: int) -> Record:
    """Read the record at a file's position.

    Args:
        file: of records.
        mark: what the file begins with.
        left: how many bytes of it are left.

    Raises:
        NotARecord: there is none.
    """
    header = file.read(min(_HEADER_BYTES, left))
    if not (mark.startswith(header[:MARK_BYTES]) and mark.startswith(_MAGIC[: len(mark)])):
        raise NotARecord(torn=False)
    if len(header) < _HEADER_BYTES:
        raise NotARecord(torn=True)
    lengths = _LENGTHS.unpack_from(header, MARK_BYTES)
    if not _is_header(header):
        raise NotARecord(torn=False)
    if sum(lengths) > left - _HEADER_BYTES:
        raise NotARecord(torn=True)
    record = Record(*map(file.read, lengths))
    if record.encode_header(mark) != header:
        raise NotARecord(torn=False)
    return record


def find_mark(data: bytes, near: bytes) -> bytes:
    """The mark of a file whose first bytes may be damaged: that of a whole header, but for one byte the same.

    Nobody can put one so near into a picture without knowing seven of its random bytes.

    Args:
        data: of the file.
        near: what the file begins with; given back where there is no such header.
    """
    place = data.find(_MAGIC)
    while place >= 0:
        header = data[place : place + _HEADER_BYTES]
        mark = header[:MARK_BYTES]
        is_near = sum(a != b for a, b in zip(mark, near, strict=False)) <= 1
        if is_near and len(header) == _HEADER_BYTES and _is_header(header):
            return mark
        place = data.find(_MAGIC, place + 1)
    return near


def find_next(data: bytes, mark: bytes) -> int | None:
    """Where in bytes, not at their beginning, a record of a file with a mark may begin; None if nowhere."""
    place = data.find(mark, 1) if mark.startswith(_MAGIC) else -1
    return None if place < 0 else place


def _is_header(header: bytes) -> bool:
    expected: int = _CRCS.unpack(header[-_CRCS.size :])[0]
    return zlib.crc32(header[: -_CRCS.size]) == expected
