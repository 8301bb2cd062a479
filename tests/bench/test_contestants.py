"""Tests of contestants: child processes that are timed in turns."""

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.contestants import (
    Contestant,
    ContestantError,
    Results,
    TimedCalls,
    measure_in_turns,
    start_contestants,
)

_PROGRAM = """
import sys, time
from bench.task_server import serve_tasks

def load():
    print("message on standard output")
    held = bytearray(b"x") * 100_000_000
    return {
        "fast": (lambda: time.sleep(0.001), 1),
        "batch": (lambda: time.sleep(0.008) or len(held), 8),
        "exit": (lambda: sys.exit("no more"), 1),
    }

serve_tasks(load)
"""
COMMAND = [sys.executable, "-c", _PROGRAM]


def test_measure_times_each_call(tmp_path: Path) -> None:
    with Contestant("one", COMMAND, tmp_path / "one.log", 1) as one:
        assert one.tasks == {"fast": 1, "batch": 8, "exit": 1}
        timed = one.measure("batch", 0.0, min_calls=4)
        assert len(timed.seconds) == 4
        assert min(timed.seconds) >= 0.008
        assert timed.images == 8
        assert 100e6 < one.peak_bytes < 1e9
    assert "message on" in (tmp_path / "one.log").read_text()


def test_failed_load_raises_with_log(tmp_path: Path) -> None:
    with pytest.raises(ContestantError, match=r"(?s)broken ended.*no such model"):
        Contestant("broken", [sys.executable, "-c", "exit('no such model')"], tmp_path / "log", 1)


def test_end_during_a_measurement_raises_with_log(tmp_path: Path) -> None:
    with Contestant("one", COMMAND, tmp_path / "one.log", 1) as one:
        for task in ("exit", "fast"):
            with pytest.raises(ContestantError, match=r"(?s)one ended.*no more"):
                one.measure(task, 0.0)


def test_every_round_has_all_contestants_and_tasks(tmp_path: Path) -> None:
    with ExitStack() as stack:
        both = start_contestants(stack, [("one", COMMAND), ("two of", COMMAND)], tmp_path, 1)
        results = measure_in_turns(both, ["fast", "batch"], 2, 0.0)
    assert {key: len(timings) for key, timings in results.timings.items()} == {
        ("one", "fast"): 2, ("one", "batch"): 2, ("two of", "fast"): 2, ("two of", "batch"): 2,
    }  # fmt: skip
    assert results.peaks.keys() == {"one", "two of"}
    assert (tmp_path / "two-of.log").exists()


def test_results_are_per_image() -> None:
    timings = {
        ("A", "batch"): [TimedCalls([0.8], 1.6, 8), TimedCalls([0.4], 0.8, 8), TimedCalls([4.0], 8.0, 8)],
        ("A", "one"): [TimedCalls([0.010, 0.020], 0.1), TimedCalls([0.030], 0.1), TimedCalls([0.040], 0.1)],
    }
    results = Results(timings, {"A": 300 * 2**20})
    assert results.per_round("A", "batch") == pytest.approx([100, 50, 500])
    assert results.cpu_per_round("A", "batch") == pytest.approx([200, 100, 1000])
    [row] = results.table("All", "one", "one image").rows
    assert row == ["A", "100.00", "10.0", "200.00", "25.0 / 38.5 / 39.7", "300"]
    assert results.figures()["A"]["one"][0] == {"images": 1, "cpu": 0.1, "seconds": [0.010, 0.020]}
