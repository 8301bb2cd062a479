"""Tests of the benchmark of training time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.training_time import TrainingCost, make_images, report


def test_report_divides_anomalib_by_ours() -> None:
    ours, theirs = (
        TrainingCost([9.0, 2.0, 2.0], [9.0, 3.0, 3.0], 1.0, 100),
        TrainingCost([9.0, 3.0, 3.0], [9.0, 6.0, 6.0], 0, 300),
    )
    found = report({"flowgauge float32": [ours], "anomalib": [theirs]}, images=64, batch=32)
    epoch, cpu, whole, memory = (one.median for one in found.ratios)
    assert (epoch, cpu, memory) == (1.5, 2.0, 3.0)
    assert 1 < whole < 1.5


@pytest.mark.slow
def test_our_training_runs(tmp_path: Path) -> None:
    make_images(tmp_path / "data" / "part" / "train" / "good", 4)
    options = ["--epochs=2", "--batch=4", "--threads=1", "--precisions=float32", f"--child={tmp_path}"]
    command = [sys.executable, "-m", "bench.training_time", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout.splitlines()[-1])["epochs"]) == 2
