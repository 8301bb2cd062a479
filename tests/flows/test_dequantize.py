"""Dequantisation and the logit."""

import math

import pytest
import torch
from scipy import stats

from flows import Compose, Flow, Logit, StandardLogistic, StandardNormal, UniformDequantization


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.float64])
def test_integers_come_back_and_the_noise_is_uniform(dtype: torch.dtype) -> None:
    layer = UniformDequantization(5)
    x = torch.randint(5, (4000, 3)).to(dtype)
    y, log_det = layer.forward(x)
    assert torch.equal(layer.inverse(y)[0], x.to(y.dtype))
    assert log_det.tolist() == pytest.approx(4000 * [-3 * math.log(5)])
    noise = (y * 5 - x).double().flatten()
    assert stats.kstest(noise.numpy(), "uniform").pvalue > 1e-3


def test_values_beyond_the_levels_come_back_as_the_nearest() -> None:
    x, _ = UniformDequantization(4).inverse(torch.tensor([[-0.1, 0.0, 0.999, 1.0, 2.0]]))
    assert x.tolist() == [[0, 0, 3, 3, 3]]


def test_a_flow_over_integers_bounds_their_probability() -> None:
    """The mean of log p over the noise is below log P, which the density of each cell integrates to."""
    torch.manual_seed(0)
    # A logit normal over [0, 1), so P of a cell is a difference of normal probabilities.
    flow = Flow(Compose([UniformDequantization(4), Logit(0.0)]), StandardNormal((1,))).double()
    edges = torch.tensor([1e-12, 0.25, 0.5, 0.75, 1 - 1e-12], dtype=torch.float64)
    exact = torch.tensor(stats.norm.cdf(torch.logit(edges).numpy())).diff().log()
    for value in range(4):
        x = torch.full((20_000, 1), float(value), dtype=torch.float64)
        bound = flow.log_prob(x).mean().item()
        assert exact[value].item() - 1 < bound < exact[value].item()


def test_samples_are_integers() -> None:
    flow = Flow(Compose([UniformDequantization(9), Logit()]), StandardNormal((2,)))
    x = flow.sample(500)
    assert torch.equal(x, x.round())
    assert x.min() >= 0
    assert x.max() <= 8


def test_the_logit_is_finite_at_both_ends() -> None:
    z, log_det = Logit(0.05).forward(torch.tensor([[0.0, 1.0]], dtype=torch.float64))
    assert z.tolist()[0] == pytest.approx([-math.log(19), math.log(19)])
    assert log_det.item() == pytest.approx(2 * (math.log(0.9) - math.log(0.05 * 0.95)))


def test_without_alpha_there_is_no_density_at_the_ends() -> None:
    """Its limit is 0 with a normal base and 1 with a logistic one: inf - inf says that it is not known."""
    ends = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    z, log_det = Logit(0.0).forward(ends)
    assert z.tolist() == [[-math.inf], [math.inf]]
    assert log_det.tolist() == [math.inf, math.inf]
    back, undone = Logit(0.0).inverse(z)
    assert torch.equal(back, ends)
    assert undone.tolist() == [-math.inf, -math.inf]
    for base in (StandardNormal((1,)), StandardLogistic((1,))):
        flow = Flow(Logit(0.0), base).double()
        assert flow.log_prob(ends).isnan().all()
        assert flow.log_prob(ends.nextafter(ends.new_tensor(0.5))).isfinite().all()


def test_beyond_the_ends_there_is_no_logit() -> None:
    for alpha in (0.0, 0.05):
        out = torch.tensor([[-alpha - 0.1], [1 + alpha + 0.1]], dtype=torch.float64)
        for result in Logit(alpha).forward(out):
            assert result.isnan().all()


def test_other_sizes_are_refused() -> None:
    for alpha in (-0.1, 0.5, float("nan")):
        with pytest.raises(ValueError, match=r"expected alpha in \[0, 0.5\); got"):
            Logit(alpha)
    with pytest.raises(ValueError, match="expected at least 2 levels; got 1"):
        UniformDequantization(1)


def test_integers_become_numbers_of_the_flows_own_dtype() -> None:
    x = torch.randint(9, (4, 3), dtype=torch.uint8)
    for dtype in (torch.float64, torch.bfloat16):
        y, log_det = UniformDequantization(9).to(dtype).forward(x)
        assert y.dtype == log_det.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [3, 10, 100, 1000, 10_000, 65_535, 65_536, 1_000_003])
@pytest.mark.parametrize("noise", [0.0, 2.0**-24, 0.5, 1 - 2.0**-24, None])
def test_every_integer_comes_back_whatever_the_number_of_levels(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, levels: int, noise: float | None
) -> None:
    """A quotient by levels that are no power of 2 is rounded, and may fall into the next cell."""
    if noise is not None:
        monkeypatch.setattr(torch, "rand_like", lambda x: torch.full_like(x, noise))
    layer = UniformDequantization(levels)
    x = torch.arange(levels, dtype=dtype)[None]
    y, _ = layer.forward(x)
    assert torch.equal(layer.inverse(y)[0], x)
    assert y.min() >= 0
    assert y.max() < 1


def test_no_noise_is_rounded_up_to_the_next_integer(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 + the largest number below 1 is 201 in single precision."""
    monkeypatch.setattr(torch, "rand_like", lambda x: torch.full_like(x, 1 - 2.0**-24))
    layer = UniformDequantization(256)
    x = torch.arange(256.0)[None]
    assert torch.equal(layer.inverse(layer.forward(x)[0])[0], x)
