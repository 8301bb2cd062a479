"""The bench of heads sets graphs of a head's own beside those that it shares."""

import pytest

pytest.importorskip("openvino")

from bench import heads
from bench.heads import Found, measure


def test_both_are_computed_in_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(heads.MAPS, "small", ((6, 8), (5, 4)))
    found = measure("small", "float32", rounds=2, threads=1)
    assert len(found.times) == len(heads.BATCHES)
    assert 0 <= found.difference < 1e-5
    for of_batch in found.times:
        for times in of_batch:
            assert len(times) == 2
            assert min(times) > 0


def test_where_there_is_no_room_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(heads.MAPS, "small", ((6, 8),))
    monkeypatch.setattr("flows.fastflow.engines.openvino_engine._OWN_BYTES", 0)
    with pytest.raises(ValueError, match="no room for graphs of its own"):
        measure("small", "float32", rounds=1, threads=1)


def test_a_ratio_is_that_of_a_round() -> None:
    found = Found("n", "float32", [([2, 9, 4], [1, 3, 8]), ([3, 3, 3], [6, 3, 1])], 2.6e-6)
    assert found.row() == "| n | float32 | 4.00 / 3.00 | 2.00 | 3.00 / 3.00 | 1.00 | 3e-06 |"
