"""A history for tests, and inspections to put into it."""

import hashlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.database import clock
from app.history.record import Entry
from app.settings import Settings

MakeEntry = Callable[..., Entry]


@pytest.fixture
def history_settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings of a history in a folder of the test's own."""
    return Settings(history=tmp_path / "history", database=database_url)


@pytest.fixture
def make_entry() -> MakeEntry:
    """Make inspections, each with a picture of its own; keyword arguments are columns, or the picture."""
    numbers = itertools.count()

    def make(*, picture: bytes | None = None, **columns: Any) -> Entry:
        number = next(numbers)
        picture = picture if picture is not None else b"picture %d" % number
        identifier = columns.get("id", clock.new_id())
        row = {
            "id": identifier,
            "created_ms": clock.time_of(identifier),
            "category": "bottle",
            "version": "v1",
            "precision": "float32",
            "decision": "PASS",
            "score": 0.5 + number,
            "p_value": 0.25,
            "request_id": f"r{number}",
            "image_sha256": hashlib.sha256(picture).hexdigest(),
            "map_low": 0.0,
            "map_middle": 2.0,
            "features": [1.0, 2.0],
            "answer": json.dumps({"inspection_id": identifier}),
            **columns,
        }
        return Entry(row, picture, np.full((4, 6), number, np.float32))

    return make
