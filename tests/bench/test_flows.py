"""Tests of the benchmark of the flow library."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.flows.density import compare, draw_samples, losses
from bench.flows.models import Density
from training.density.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_exact_density_has_no_divergence_from_itself(name: str) -> None:
    target = TARGETS[name]
    samples = draw_samples(target, (3_000, 200, 4_000), seed=0)
    train = target.sample(3_000, torch.Generator().manual_seed(0))
    mean, deviation = train.mean(0), train.std(0)
    exact = Density(
        torch.nn.Identity(), lambda z: target.log_prob(mean + deviation * z) + deviation.log().sum()
    )
    found = losses(exact, samples)
    assert found.median().abs() < 1e-4
    # Rounding can move a point of the checkerboard over an edge, into density 0.
    assert (found.abs() < 1e-2).double().mean() > 0.999


def test_pair_is_equal_within_two_standard_errors() -> None:
    zeros = torch.zeros(1_000)
    noise = torch.randn(1_000, generator=torch.Generator().manual_seed(0))
    assert compare([zeros, zeros], [zeros + 9, zeros + 11])[1] == "better"
    assert compare([zeros, zeros], [zeros - 9, zeros - 11])[1] == "worse"
    assert compare([zeros, zeros], [zeros, zeros + 2])[1] == "equal"
    # The error of the finite test set counts too.
    assert compare([zeros, zeros], [zeros + noise, zeros + noise])[1] == "equal"


def test_failed_fit_is_a_verdict() -> None:
    zeros, failed = torch.zeros(10), torch.full((10,), math.inf)
    assert compare([zeros, zeros], [zeros, failed])[1] == "better"
    assert compare([zeros, failed], [failed, failed])[1] == "worse"


@pytest.mark.slow
def test_both_parts_run(tmp_path: Path) -> None:
    for name in ("zuko", "normflows", "FrEIA"):
        pytest.importorskip(name)
    command = [sys.executable, "-W", "ignore", "-m", "bench.flows", "all", "--quick", "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    assert "of 6 pairs" in (tmp_path / "density.md").read_text()
    assert "FrEIA over FlowGauge" in (tmp_path / "speed.md").read_text()
