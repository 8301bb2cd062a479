"""Kills under load, in real processes: the benchmark's scenario, small."""

from pathlib import Path

from bench.service import crash
from tests.support.fleet import Fleet


def test_a_kill_loses_nothing_that_was_answered_and_leaves_no_litter(
    small_fleet: Fleet, tmp_path: Path
) -> None:
    figures, failures = crash.run(small_fleet, tmp_path, kills=2, clients=8, most=40)
    assert failures == []
    assert figures["answered"] > 20
    assert figures["in_the_history"] >= figures["answered"]
