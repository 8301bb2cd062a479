"""Inspections for a process that is going to be killed."""

import hashlib
import os
from collections.abc import Iterator

import numpy as np

from app.database import clock
from app.history.record import Entry


def entries(line: int) -> Iterator[Entry]:
    """Inspections without end, some with the same picture."""
    number = 0
    while True:
        picture = b"the same" if number % 5 == 0 else os.urandom(150_000)
        identifier = clock.new_id()
        row = {
            "id": identifier,
            "created_ms": clock.time_of(identifier),
            "category": f"line{line}",
            "version": "v1",
            "precision": "float32",
            "decision": "PASS",
            "score": 1.0,
            "p_value": 0.5,
            "request_id": "r",
            "image_sha256": hashlib.sha256(picture).hexdigest(),
            "map_low": 0.0,
            "map_middle": 1.0,
            "answer": "{}",
        }
        yield Entry(row, picture, np.zeros((64, 64), np.float32))
        number += 1
