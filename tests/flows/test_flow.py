"""A flow is a density: it integrates to 1, and its samples have it."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy import stats

from flows import MLP, ChannelAffine, Compose, ConditionalDiagonalNormal, Flow, StandardNormal
from flows.recipes import glow, maf, neural_spline, nice, real_nvp
from tests.flows.cases import Case, Shape, coupling, steps
from tests.flows.contract import Setting


def flow(event: Shape, seed: int = 0, spread: float = 0.6) -> Flow:
    """Random steps over a standard normal."""
    transform = Setting(event, seed=seed, spread=spread).transform(Case("steps", steps))
    return Flow(transform, StandardNormal(event)).double()


def test_one_dimension_is_the_normal_it_must_be() -> None:
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
def test_two_dimensions_integrate_to_one(seed: int) -> None:
    two = flow((2,), seed)
    side = 1200
    # A box that holds all samples with room to spare.
    samples = two.sample(4000, generator=torch.Generator().manual_seed(0)).detach()
    low, high = samples.min(0).values, samples.max(0).values
    low, high = low - 0.6 * (high - low), high + 0.6 * (high - low)
    axes = [torch.linspace(a, b, side, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
    with torch.no_grad():
        density = two.log_prob(torch.cartesian_prod(*axes)).exp()
    cell = ((high - low) / (side - 1)).prod()
    assert (density.sum() * cell).item() == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("event", [(2,), (5,), (3, 2, 4)])
def test_samples_come_with_their_own_density(event: Shape) -> None:
    one = flow(event)
    x, log_prob = one.sample_and_log_prob(20, generator=torch.Generator().manual_seed(3))
    assert x.shape == (20, *event)
    assert log_prob.shape == (20,)
    torch.testing.assert_close(one.log_prob(x), log_prob, rtol=1e-9, atol=1e-9)
    assert torch.equal(one.sample(20, generator=torch.Generator().manual_seed(3)), x)


def test_fitting_raises_the_likelihood_of_the_data() -> None:
    torch.manual_seed(0)
    data = torch.randn(200, 2, dtype=torch.float64) * torch.tensor([0.2, 2.0]) + 1.5
    two = Flow(Compose([ChannelAffine(2), coupling((2,))]), StandardNormal((2,))).double()
    optimiser = torch.optim.Adam(two.parameters(), 0.1)
    before = two.log_prob(data).mean().item()
    for _ in range(300):
        optimiser.zero_grad()
        torch.autograd.backward(-two.log_prob(data).mean())
        optimiser.step()
    after = two.log_prob(data).mean().item()
    # The best possible, for a normal of these deviations.
    best = stats.norm(scale=0.2).entropy() + stats.norm(scale=2.0).entropy()
    assert before < -5
    assert after == pytest.approx(-float(best), abs=0.15)


def test_a_temperature_below_1_draws_likelier_samples() -> None:
    one = flow((5,))
    hot, cold = (
        one.sample_and_log_prob(500, temperature=t, generator=torch.Generator().manual_seed(0))
        for t in (1.0, 0.5)
    )
    assert cold[1].mean() > hot[1].mean() + 1
    # The densities are the flow's own, whatever the temperature.
    torch.testing.assert_close(one.log_prob(cold[0]), cold[1], rtol=1e-8, atol=1e-8)


def test_a_conditional_flow_learns_what_the_context_says() -> None:
    """x given c is N(c, (0.1 + c^2)^2)."""
    torch.manual_seed(0)
    base = ConditionalDiagonalNormal((1,), MLP(1, (32,), 2))
    conditional = Flow(ChannelAffine(1), base)
    optimiser = torch.optim.Adam(conditional.parameters(), 1e-2)
    for _ in range(400):
        context = 2 * torch.rand(256, 1) - 1
        x = context + (0.1 + context.square()) * torch.randn(256, 1)
        optimiser.zero_grad()
        torch.autograd.backward(-conditional.log_prob(x, context).mean())
        optimiser.step()
    context = torch.tensor([-0.8, 0.0, 0.8]).repeat_interleave(4000)[:, None]
    samples = conditional.sample(12_000, context=context).detach().view(3, 4000)
    assert samples.mean(1).tolist() == pytest.approx([-0.8, 0, 0.8], abs=0.15)
    assert samples.std(1).tolist() == pytest.approx([0.74, 0.1, 0.74], rel=0.25)


@pytest.mark.parametrize("recipe", [nice, real_nvp, glow, neural_spline, maf])
def test_safetensors_bring_a_flow_back_to_the_bit(recipe: Callable[..., Flow], tmp_path: Path) -> None:
    torch.manual_seed(0)
    one, two = recipe((4,)).train(), recipe((4,)).eval()
    x = torch.randn(50, 4)
    one.log_prob(x)  # sets the activation norms
    save_file(one.state_dict(), tmp_path / "flow.safetensors")
    two.load_state_dict(load_file(tmp_path / "flow.safetensors"))
    assert torch.equal(one.eval().log_prob(x), two.log_prob(x))
