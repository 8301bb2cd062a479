"""The targets' densities are normalised, and their samples follow them."""

import functools
import math

import pytest
import torch
from torch import Tensor

from training.density.targets import TARGETS, Mixture, Target


@functools.cache
def on_grid(name: str) -> tuple[Tensor, float]:
    """A target's log-densities, (side, side), in double precision at the centres of fine cells that fill its
    box, and the area of one cell.
    """
    target = TARGETS[name]
    # What is smooth over a fifth of a deviation needs no finer grid; edges and the funnel's neck do.
    side = 420 if isinstance(target, Mixture) else 1200
    left, right, bottom, top = target.box
    steps = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    points = torch.cartesian_prod(left + (right - left) * steps, bottom + (top - bottom) * steps)
    return target.log_prob(points).reshape(side, side), (right - left) * (top - bottom) / side**2


every_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())


def test_there_are_many_targets_each_under_its_name() -> None:
    assert len(TARGETS) >= 9
    assert all(target.name == name for name, target in TARGETS.items())


@every_target
def test_density_integrates_to_1(target: Target) -> None:
    log_prob, area = on_grid(target.name)
    assert log_prob.exp().sum().item() * area == pytest.approx(1, abs=2e-3)


@every_target
def test_the_samples_mean_log_density_is_minus_the_entropy(target: Target) -> None:
    log_prob, area = on_grid(target.name)
    expected = (log_prob.exp() * log_prob.clamp_min(-1e3)).sum().item() * area
    values = target.log_prob(target.sample(50_000, torch.Generator().manual_seed(0))).double()
    error = values.std().item() / math.sqrt(len(values))
    assert values.isfinite().all()
    assert values.mean().item() == pytest.approx(expected, abs=5 * error + 5e-3)
