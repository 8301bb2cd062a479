"""Rows and files of inspections for tests."""

import hashlib
import itertools
import json
from typing import Any

from sqlalchemy import insert

from app.database import clock
from app.database.engine import Database
from app.database.tables import inspections
from app.history.inspection_files import InspectionFiles, image_name, map_name
from app.history.rates import DECISIONS
from app.schemas.predict import Decision
from app.schemas.reports import DecisionCounts

_numbers = itertools.cycle(range(4096))


def row(at_ms: int | None = None, image: bytes | None = None, **columns: Any) -> dict[str, Any]:
    """Make a row as the writer stores it, with the image or one of its own."""
    identifier = clock.new_id()
    if at_ms is not None:  # of the same time, in the order in which they are made
        identifier = f"{clock.first_id(at_ms)[:13]}-7{next(_numbers):03x}{identifier[18:]}"
    data = identifier.encode() if image is None else image
    return {
        **dict.fromkeys(inspections.columns.keys()),
        "id": identifier,
        "created_ms": clock.id_to_ms(identifier),
        "category": "tiny",
        "version": "v1",
        "precision": "float32",
        "decision": "PASS",
        "score": 1.5,
        "p_value": 0.5,
        "request_id": "r",
        "image_sha256": hashlib.sha256(data).hexdigest(),
        "image_bytes": len(data),
        "has_pictures": True,
        "map_bytes": 100,
        "map_low": 0.0,
        "map_middle": 1.0,
        "answer": json.dumps(
            {"inspection_id": identifier, "threshold": {"n_calibration": 99, "target_fpr": 0.01}}
        ),
        "review_revision": 0,
        "audit": False,
        "warnings": [],
        **columns,
    }


def add(database: Database, *added: dict[str, Any]) -> list[str]:
    with database.write() as connection:
        connection.execute(insert(inspections), list(added))
    return [one["id"] for one in added]


def store_files(
    files: InspectionFiles, sha256: str, image: bytes, identifier: str, score_map: bytes = b"map"
) -> None:
    files.store_all({image_name(sha256): image, map_name(identifier): score_map})


def decided(**counts: tuple[int, int, int]) -> dict[Decision, DecisionCounts]:
    """Make counts by decision from (inspections, reviewed good, reviewed defect)."""
    return {
        d: DecisionCounts(inspections=n, reviewed_good=good, reviewed_defect=defect)
        for d in DECISIONS
        for n, good, defect in [counts.get(d, (0, 0, 0))]
    }
