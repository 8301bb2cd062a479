"""Dequantisation and logit."""

import math

import pytest
import torch
from scipy import stats

from flows import Compose, Flow, Logit, StandardNormal, UniformDequantization


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.float64])
def test_integers_round_trip_and_noise_is_uniform(dtype: torch.dtype) -> None:
    layer = UniformDequantization(5)
    x = torch.randint(5, (4000, 3)).to(dtype)
    y, log_det = layer.forward(x)
    assert torch.equal(layer.inverse(y)[0], x.to(y.dtype))
    assert log_det.tolist() == pytest.approx(4000 * [-3 * math.log(5)])
    noise = (y * 5 - x).double().flatten()
    assert stats.kstest(noise.numpy(), "uniform").pvalue > 1e-3


def test_mean_log_prob_bounds_the_integers_probability() -> None:
    """By Jensen, the mean of log p over the noise is below log P of the integer."""
    torch.manual_seed(0)
    # A logit normal over [0, 1), so P of a cell is a difference of normal probabilities.
    flow = Flow(Compose([UniformDequantization(4), Logit(0.0)]), StandardNormal((1,))).double()
    edges = torch.tensor([1e-12, 0.25, 0.5, 0.75, 1 - 1e-12], dtype=torch.float64)
    exact = torch.tensor(stats.norm.cdf(torch.logit(edges).numpy())).diff().log()
    for value in range(4):
        x = torch.full((20_000, 1), float(value), dtype=torch.float64)
        bound = flow.log_prob(x).mean().item()
        assert exact[value].item() - 1 < bound < exact[value].item()


def test_logit_is_finite_at_both_ends() -> None:
    z, log_det = Logit(0.05).forward(torch.tensor([[0.0, 1.0]], dtype=torch.float64))
    assert z.tolist()[0] == pytest.approx([-math.log(19), math.log(19)])
    assert log_det.item() == pytest.approx(2 * (math.log(0.9) - math.log(0.05 * 0.95)))


def test_invalid_alpha_and_levels_are_rejected() -> None:
    for alpha in (-0.1, 0.5, float("nan")):
        with pytest.raises(ValueError, match=r"expected alpha in \[0, 0.5\); got"):
            Logit(alpha)
    with pytest.raises(ValueError, match="expected at least 2 levels; got 1"):
        UniformDequantization(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [3, 10, 100, 1000, 10_000, 65_535, 65_536, 1_000_003])
@pytest.mark.parametrize("noise", [0.0, 2.0**-24, 0.5, 1 - 2.0**-24, None])
def test_every_integer_round_trips_for_any_levels(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, levels: int, noise: float | None
) -> None:
    """Division by levels that are no power of 2 rounds, and could fall into the next cell."""
    if noise is not None:
        monkeypatch.setattr(torch, "rand_like", lambda x: torch.full_like(x, noise))
    layer = UniformDequantization(levels)
    x = torch.arange(levels, dtype=dtype)[None]
    y, _ = layer.forward(x)
    assert torch.equal(layer.inverse(y)[0], x)
    assert y.min() >= 0
    assert y.max() < 1
