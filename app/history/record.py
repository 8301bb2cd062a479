"""A record of the journal: how an inspection stands in a file until it is in the database.

record = magic (4 bytes), lengths of the three parts (3 x uint64), crc32 of magic and lengths, and of the
         parts (2 x uint32), the parts
parts  = the inspection's row (JSON), the image as it was uploaded, the score map (.npy)
"""

import struct
import zlib
from typing import BinaryIO, Final, NamedTuple

_MAGIC: Final = b"FGJ1"
_LENGTHS: Final = struct.Struct("<QQQ")
_CRCS: Final = struct.Struct("<II")
_HEADER_BYTES: Final = len(_MAGIC) + _LENGTHS.size + _CRCS.size


class TornRecord(Exception):  # noqa: N818  (what a killed process leaves)
    """The end of a record is missing: it was not finished, and not answered."""


class DamagedRecord(Exception):  # noqa: N818
    """What is here is not what was written."""


class Record(NamedTuple):
    """An inspection as the journal keeps it: three parts of bytes."""

    row: bytes
    picture: bytes
    score_map: bytes

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return _HEADER_BYTES + sum(map(len, self))

    def encode(self) -> bytes:
        """The record's bytes in a file."""
        return b"".join((self._header(), *self))

    def _header(self) -> bytes:
        header = _MAGIC + _LENGTHS.pack(*map(len, self))
        crc = 0
        for part in self:
            crc = zlib.crc32(part, crc)
        return header + _CRCS.pack(zlib.crc32(header), crc)

    @classmethod
    def read(cls, file: BinaryIO, left: int) -> "Record":
        """Read the record at a file's position, of which so many bytes are left.

        Raises:
            TornRecord: its end is missing.
            DamagedRecord: there is none.
        """
        header = file.read(min(_HEADER_BYTES, left))
        if not header.startswith(_MAGIC[: len(header)]):
            raise DamagedRecord
        if len(header) < _HEADER_BYTES:
            raise TornRecord
        checked = header[: -_CRCS.size]
        if zlib.crc32(checked) != _CRCS.unpack_from(header, len(checked))[0]:
            raise DamagedRecord
        lengths = _LENGTHS.unpack_from(header, len(_MAGIC))
        if sum(lengths) > left - _HEADER_BYTES:
            raise TornRecord
        record = cls(*map(file.read, lengths))
        if record._header() != header:
            raise DamagedRecord
        return record
