import json
import math
from typing import Any

import numpy as np
import pytest

from tests.app.history.conftest import MakeEntry


@pytest.mark.parametrize(
    "columns",
    [
        {"part_id": "with a \0"},
        {"part_id": "with a \ud800"},
        {"part_id": "P" * 257},
        {"score": math.nan},  # SQLite keeps it as NULL
        {"p_value": math.inf},
        {"created_ms": 2**63},
        {"category": None},
        {"image_sha256": "0" * 63},
        {"id": "no id"},
        {"image_bytes": 1},
        {"unknown": 1},
    ],
)
def test_value_that_a_database_refuses_is_refused(make_entry: MakeEntry, columns: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (each has its own words)
        make_entry(**columns).record()


def test_scores_beyond_half_precision_are_clipped(make_entry: MakeEntry) -> None:
    entry = make_entry()
    record = type(entry)(entry.row, entry.picture, np.full((2, 3), 1e9)).record()
    assert json.loads(record.row)["map_bytes"] == len(record.score_map)
    assert np.frombuffer(record.score_map[-12:], np.float16).tolist() == [65504.0] * 6
