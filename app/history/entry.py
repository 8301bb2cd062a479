"""An inspection on its way into the history: checked before anything promises to keep it."""

import io
import json
import math
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import BigInteger, Column, Float, String

from app.database.tables import inspections
from app.history.record import Record

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
# What follows from the rest, or from later events.
_DERIVED: Final = frozenset({"image_bytes", "has_pictures", "map_bytes", "review_revision", "verdict"})
_HALF_MAX: Final = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Entry:
    """What the history keeps of one inspection.

    Args:
        row: columns of the table `inspections`, `features` as a list of numbers. Those that may be null may
            be left out; image_bytes, has_pictures, map_bytes, review_revision and verdict are not among them.
        picture: the upload's bytes.
        score_map: anomaly scores, (h, w); kept as float16.
    """

    row: Mapping[str, Any]
    picture: bytes
    score_map: NDArray[np.floating[Any]]

    def record(self) -> Record:
        """The entry as the journal keeps it.

        Raises:
            ValueError: a column is unknown, missing, or has a value that the database would refuse.
        """
        given = dict(self.row)
        if given.get("features") is not None:
            given["features"] = json.dumps(given["features"])
        unknown = given.keys() - inspections.columns.keys() | given.keys() & _DERIVED
        if unknown:
            raise ValueError(f"not to be given to the history: {', '.join(sorted(unknown))}")
        row = {
            column.name: _checked(column, given.get(column.name))
            for column in inspections.columns
            if column.name not in _DERIVED
        }
        if str(uuid.UUID(row["id"])) != row["id"] or not _SHA256.fullmatch(row["image_sha256"]):
            raise ValueError(f"no id or no sha256: {row['id']!r}, {row['image_sha256']!r}")
        file = io.BytesIO()
        half = np.clip(self.score_map, -_HALF_MAX, _HALF_MAX).astype(np.float16)
        np.save(file, half, allow_pickle=False)
        score_map = file.getvalue()
        row |= {
            "image_bytes": len(self.picture),
            "has_pictures": True,
            "map_bytes": len(score_map),
            "review_revision": 0,
            "verdict": None,
        }
        return Record(json.dumps(row).encode(), self.picture, score_map)


def _checked(column: Column[Any], value: Any) -> Any:
    """A value that both databases take for a column.

    A record that its database refused could never be filed, and would keep all after it waiting.
    """
    if value is None:
        if not column.nullable:
            raise ValueError(f"the history needs {column.name}")
    elif isinstance(column.type, String):  # Text is one too
        if not isinstance(value, str) or "\0" in value or len(value) > (column.type.length or len(value)):
            raise ValueError(f"{column.name} must be text of {column.type.length} characters; got {value!r}")
        value.encode()  # lone surrogates
    elif isinstance(column.type, Float):
        if not math.isfinite(value):  # SQLite keeps NaN as NULL
            raise ValueError(f"{column.name} must be a finite number; got {value!r}")
        return float(value)
    elif isinstance(column.type, BigInteger) and not (isinstance(value, int) and -(2**63) <= value < 2**63):
        raise ValueError(f"{column.name} must be a 64-bit integer; got {value!r}")
    return value
