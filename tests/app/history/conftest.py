"""Entries for tests of the history."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from app.history.journal_record import HistoryEntry
from tests.app.history.rows import row

MakeEntry = Callable[..., HistoryEntry]


@pytest.fixture
def make_entry() -> MakeEntry:
    """Make entries with distinct images; keyword arguments are columns, or the image."""
    numbers = itertools.count()

    def make(*, image: bytes | None = None, **columns: Any) -> HistoryEntry:
        number = next(numbers)
        image = b"picture %d" % number if image is None else image
        made = row(image=image, score=0.5 + number, features=[1.0, 2.0])
        return HistoryEntry(made | columns, image, np.full((4, 6), number, np.float32))

    return make
