"""Kills under load in real processes: a small run of the benchmark's scenario."""

from pathlib import Path

from bench.service import crash
from tests.support.fleet import Fleet


def test_kills_lose_no_answer_and_leave_no_partial_file(small_fleet: Fleet, tmp_path: Path) -> None:
    figures, failures = crash.run(small_fleet, tmp_path, kills=1, clients=8, max_answers=40)
    assert failures == []
    assert figures["answered"] > 20
    assert figures["in_the_history"] >= figures["answered"]
