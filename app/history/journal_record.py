"""An inspection to be stored, and its encoding in the journal.

record = magic (4 bytes), lengths of the parts (3 x uint64), crc32 of these bytes and of the parts
         (2 x uint32), parts
parts  = the inspection's row (JSON), the uploaded image, the score map (.npy)
"""

import io
import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.database.tables import inspections

_MAGIC: Final = b"FGJ1"
_LENGTHS: Final = struct.Struct("<4sQQQ")
_CRCS: Final = struct.Struct("<II")
_HEADER_BYTES: Final = _LENGTHS.size + _CRCS.size
# Columns that a server before migration 0006 has not written.
_ADDED: Final = {"audit": False, "warnings": [], "file_name": None, "margin": None}
_HALF_MAX: Final = float(np.finfo(np.float16).max)


class JournalRecord(NamedTuple):
    """An inspection as stored: the table's row, the image, and the score map as .npy."""

    row: dict[str, Any]
    image: bytes
    score_map: bytes

    def encode(self) -> bytes:
        parts = json.dumps(self.row).encode(), self.image, self.score_map
        lengths = _LENGTHS.pack(_MAGIC, *map(len, parts))
        return b"".join((lengths, _CRCS.pack(zlib.crc32(lengths), _crc(*parts)), *parts))


@dataclass(frozen=True)
class HistoryEntry:
    """An inspection to be stored.

    Args:
        row: columns of the table `inspections`, `features` as a list of numbers. Nullable columns may be
            missing; image_bytes, has_pictures, map_bytes, review_revision and verdict are set later.
        score_map: anomaly scores, (h, w); stored as float16.
    """

    row: Mapping[str, Any]
    image: bytes
    score_map: NDArray[np.floating[Any]]

    def record(self) -> JournalRecord:
        file = io.BytesIO()
        half = np.clip(self.score_map, -_HALF_MAX, _HALF_MAX).astype(np.float16)
        np.save(file, half, allow_pickle=False)
        score_map = file.getvalue()
        features = self.row.get("features")
        row = {
            **dict.fromkeys(inspections.columns.keys()),
            **self.row,
            "features": None if features is None else json.dumps(features),
            "image_bytes": len(self.image),
            "has_pictures": True,
            "map_bytes": len(score_map),
            "review_revision": 0,
        }
        return JournalRecord(row, self.image, score_map)


class DecodedRecords(NamedTuple):
    """The records at the beginning of a file, their size in bytes, and a flag for damage after them.

    A truncated last record is no damage: it was not finished and not answered.
    """

    records: list[JournalRecord]
    size: int
    damaged: bool


def decode_records(data: bytes) -> DecodedRecords:
    """Decode the readable records of a journal file."""
    records: list[JournalRecord] = []
    begin = 0
    while begin + _HEADER_BYTES <= len(data):
        header = data[begin : begin + _HEADER_BYTES]
        magic, *lengths = _LENGTHS.unpack_from(header)
        checks = _CRCS.unpack_from(header, _LENGTHS.size)
        if magic != _MAGIC or zlib.crc32(header[: _LENGTHS.size]) != checks[0]:
            return DecodedRecords(records, begin, damaged=True)
        end = begin + _HEADER_BYTES
        parts = [data[end : (end := end + length)] for length in lengths]
        if end > len(data):
            break
        if _crc(*parts) != checks[1]:
            return DecodedRecords(records, begin, damaged=True)
        row = json.loads(parts[0])
        row |= {name: value for name, value in _ADDED.items() if name not in row}
        records.append(JournalRecord(row, parts[1], parts[2]))
        begin = end
    return DecodedRecords(records, begin, damaged=False)


def _crc(*parts: bytes) -> int:
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    return crc
