"""Inspections to put into a history."""

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
    """Make inspections, each with a picture of its own; keyword arguments are columns, or the picture."""
    numbers = itertools.count()

    def make(*, picture: bytes | None = None, **columns: Any) -> HistoryEntry:
        number = next(numbers)
        picture = b"picture %d" % number if picture is None else picture
        made = row(picture=picture, score=0.5 + number, features=[1.0, 2.0])
        return HistoryEntry(made | columns, picture, np.full((4, 6), number, np.float32))

    return make
