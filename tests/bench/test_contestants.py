"""Contestants: processes that are timed in turns."""

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.contestants import Contestant, ContestantError, Results, Turn, compete, load_all

_PROGRAM = """
import sys, time
from bench.answering import answer

def load():
    print("loading is told on standard output")
    held = bytearray(b"x") * 100_000_000
    return {
        "fast": (lambda: time.sleep(0.001), 1),
        "batch": (lambda: time.sleep(0.008) or len(held), 8),
        "death": (lambda: sys.exit("no more"), 1),
    }

answer(load)
"""
COMMAND = [sys.executable, "-c", _PROGRAM]


def test_turn_has_the_seconds_of_each_call(tmp_path: Path) -> None:
    with Contestant("one", COMMAND, tmp_path / "one.log", 1) as one:
        assert one.works == {"fast": 1, "batch": 8, "death": 1}
        turn = one.turn("batch", 0.0, least=4)
        assert len(turn.seconds) == 4
        assert min(turn.seconds) >= 0.008
        assert turn.images == 8
        assert 100e6 < one.peak_bytes < 1e9
    assert "loading is told" in (tmp_path / "one.log").read_text()


def test_failed_load_raises_with_the_log(tmp_path: Path) -> None:
    with pytest.raises(ContestantError, match=r"(?s)broken ended.*no such model"):
        Contestant("broken", [sys.executable, "-c", "exit('no such model')"], tmp_path / "log", 1)


def test_end_during_a_turn_raises_with_the_log(tmp_path: Path) -> None:
    with Contestant("one", COMMAND, tmp_path / "one.log", 1) as one:
        for work in ("death", "fast"):
            with pytest.raises(ContestantError, match=r"(?s)one ended.*no more"):
                one.turn(work, 0.0)


def test_all_do_every_work_in_every_round(tmp_path: Path) -> None:
    with ExitStack() as stack:
        both = load_all(stack, [("one", COMMAND), ("two of", COMMAND)], tmp_path, 1)
        results = compete(both, ["fast", "batch"], 2, 0.0)
    assert {key: len(turns) for key, turns in results.turns.items()} == {
        ("one", "fast"): 2, ("one", "batch"): 2, ("two of", "fast"): 2, ("two of", "batch"): 2,
    }  # fmt: skip
    assert results.peaks.keys() == {"one", "two of"}
    assert (tmp_path / "two-of.log").exists()


def test_results_are_per_image() -> None:
    turns = {
        ("A", "batch"): [Turn([0.8], 1.6, 8), Turn([0.4], 0.8, 8), Turn([4.0], 8.0, 8)],
        ("A", "one"): [Turn([0.010, 0.020], 0.1), Turn([0.030], 0.1), Turn([0.040], 0.1)],
    }
    results = Results(turns, {"A": 300 * 2**20})
    assert results.per_round("A", "batch") == pytest.approx([100, 50, 500])
    assert results.cpu_per_round("A", "batch") == pytest.approx([200, 100, 1000])
    [row] = results.table("All", "one", "one image").rows
    assert row == ["A", "100.00", "10.0", "200.00", "25.0 / 38.5 / 39.7", "300"]
    assert results.figures()["A"]["one"][0] == {"images": 1, "cpu": 0.1, "seconds": [0.010, 0.020]}
