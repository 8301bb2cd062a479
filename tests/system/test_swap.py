"""Versions change under load, in real processes: the benchmark's scenario, small."""

from pathlib import Path

from bench.service import swap
from tests.support.fleet import Fleet


def test_version_swaps_cause_no_wrong_answer(small_fleet: Fleet, tmp_path: Path) -> None:
    figures, failures = swap.run(small_fleet, tmp_path, clients=8, seconds=4, every=0.3)
    assert failures == []
    assert figures["answers"] > 50
    assert min(figures["changes"].values()) > 0
