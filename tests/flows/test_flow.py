"""Flows as densities: integrals, samples, temperature."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from flows import ChannelAffine, Flow, StandardNormal
from tests.flows.cases import Case, Shape, steps
from tests.flows.contract import Setting


def flow(event: Shape, seed: int = 0, spread: float = 0.6) -> Flow:
    transform = Setting(event, seed=seed, spread=spread).transform(Case("steps", steps))
    return Flow(transform, StandardNormal(event)).double()


def test_affine_flow_of_one_dimension_is_normal() -> None:
    """z = e^s x + t with z standard normal: x has mean -t e^-s and deviation e^-s."""
    affine = ChannelAffine(1).double()
    torch.nn.init.constant_(affine.log_scale, 0.7)
    torch.nn.init.constant_(affine.shift, -1.3)
    one = Flow(affine, StandardNormal((1,))).double()
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64)[:, None]
    log_prob = one.log_prob(x).detach().numpy()
    expected = stats.norm(1.3 * math.exp(-0.7), math.exp(-0.7))
    np.testing.assert_allclose(log_prob, expected.logpdf(x[:, 0].numpy()), rtol=1e-12)
    assert np.trapezoid(np.exp(log_prob), x[:, 0].numpy()) == pytest.approx(1, abs=1e-9)
    samples = one.sample(2000, generator=torch.Generator().manual_seed(0)).detach()[:, 0].numpy()
    assert stats.kstest(samples, expected.cdf).pvalue > 0.01


@pytest.mark.parametrize("seed", range(3))
def test_density_in_two_dimensions_integrates_to_one(seed: int) -> None:
    two = flow((2,), seed)
    side = 1200
    # A box around all samples, with a margin.
    samples = two.sample(4000, generator=torch.Generator().manual_seed(0)).detach()
    low, high = samples.min(0).values, samples.max(0).values
    low, high = low - 0.6 * (high - low), high + 0.6 * (high - low)
    axes = [torch.linspace(a, b, side, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
    with torch.no_grad():
        density = two.log_prob(torch.cartesian_prod(*axes)).exp()
    cell = ((high - low) / (side - 1)).prod()
    assert (density.sum() * cell).item() == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("event", [(2,), (5,), (3, 2, 4)])
def test_samples_come_with_their_density(event: Shape) -> None:
    one = flow(event)
    x, log_prob = one.sample_and_log_prob(20, generator=torch.Generator().manual_seed(3))
    assert x.shape == (20, *event)
    assert log_prob.shape == (20,)
    torch.testing.assert_close(one.log_prob(x), log_prob, rtol=1e-9, atol=1e-9)
    assert torch.equal(one.sample(20, generator=torch.Generator().manual_seed(3)), x)


def test_temperature_below_1_draws_likelier_samples() -> None:
    one = flow((5,))
    hot, cold = (
        one.sample_and_log_prob(500, temperature=t, generator=torch.Generator().manual_seed(0))
        for t in (1.0, 0.5)
    )
    assert cold[1].mean() > hot[1].mean() + 1
    # The densities are the flow's own, whatever the temperature.
    torch.testing.assert_close(one.log_prob(cold[0]), cold[1], rtol=1e-8, atol=1e-8)
