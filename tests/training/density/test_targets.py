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
def test_a_density_integrates_to_1(target: Target) -> None:
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


@every_target
def test_the_samples_fall_where_the_density_says(target: Target) -> None:
    """Pearson's statistic over a coarse grid is about chi-squared, with a degree of freedom per cell."""
    coarse, n = 15, 50_000
    log_prob, area = on_grid(target.name)
    times = len(log_prob) // coarse
    expected = n * area * log_prob.exp().reshape(coarse, times, coarse, times).sum((1, 3)).flatten()

    left, right, bottom, top = target.box
    x = target.sample(n, torch.Generator().manual_seed(1)).double()
    column = ((x[:, 0] - left) / (right - left) * coarse).floor().long()
    row = ((x[:, 1] - bottom) / (top - bottom) * coarse).floor().long()
    in_box = (column >= 0) & (column < coarse) & (row >= 0) & (row < coarse)
    assert in_box.double().mean() > 0.999
    counted = torch.bincount((column * coarse + row)[in_box], minlength=coarse**2)

    enough = expected > 20
    statistic = ((counted - expected).square() / expected)[enough].sum().item()
    freedom = int(enough.sum())
    assert freedom >= 8
    # Six deviations: a wrong sampler misses it by far, the seed is fixed.
    assert statistic < freedom + 6 * math.sqrt(2 * freedom)


def test_the_checkerboard_is_empty_between_its_squares() -> None:
    board = TARGETS["checkerboard"]
    x = torch.tensor([[-1.5, -1.5], [-0.5, -1.5], [2.5, 1.5]])
    assert board.log_prob(x).tolist() == pytest.approx([-math.log(8), -math.inf, -math.inf])
