"""The benchmark of noise: what it calls a fault, and it runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.flows.noise import faults
from bench.service.figures import Figures

ROOT = Path(__file__).parents[3]


def figures(ratio: float, flow: float) -> Figures:
    return {
        "levels": [{"brightness": 0.5, "ratio": ratio}],
        "nats_per_pixel": {"one normal": 1.0, "flow": flow, "exact": 1.5},
    }


def test_a_flow_that_follows_the_camera_has_no_fault() -> None:
    assert faults(figures(1.1, 1.49)) == []


def test_each_fault_is_named() -> None:
    assert "brightness 0.5" in faults(figures(0.5, 1.49))[0]
    assert faults(figures(1.0, 0.9)) == [
        "the flow is no better than a normal distribution of one variance",
        "the flow is 0.600 nats per pixel below the exact law",
    ]
    assert len(faults(figures(float("nan"), float("nan")))) == 3


@pytest.mark.slow
def test_it_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.flows.noise", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "noise.json").read_text())
    assert set(found["nats_per_pixel"]) == {"one normal", "normal of the camera's variance", "flow", "exact"}
    assert (tmp_path / "noise.md").exists()
