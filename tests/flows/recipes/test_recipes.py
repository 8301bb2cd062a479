"""Structure of the recipes, and their argument checks."""

import math
from collections.abc import Callable

import pytest
import torch

from flows import (
    ActNorm,
    Additive,
    Affine,
    Checkerboard,
    Coupling,
    FactorOut,
    Flow,
    Halves,
    InvertibleConv1x1,
    Scaling,
    StandardLogistic,
    Transform,
    UniformDequantization,
)
from flows.recipes import glow, maf, neural_spline, nice, planar, radial, real_nvp
from training.density.fit import FitSettings, fit, mean_log_prob

Recipe = Callable[..., Flow]
IMAGES: list[Recipe] = [nice, real_nvp, glow, neural_spline, maf]


def parts(flow: Flow, kind: type[Transform]) -> list[Transform]:
    return [module for module in flow.modules() if isinstance(module, kind)]


def laws(flow: Flow) -> set[type]:
    return {type(c.law) for c in parts(flow, Coupling) if isinstance(c, Coupling)}


def test_nice_has_additive_couplings_and_one_scaling() -> None:
    flow = nice((1, 4, 4), hidden=(8,))
    assert laws(flow) == {Additive}
    couplings = parts(flow, Coupling)
    swapped = [
        c.partition.swapped for c in couplings if isinstance(c, Coupling) and isinstance(c.partition, Halves)
    ]
    assert swapped == [False, True, False, True]
    assert len(parts(flow, Scaling)) == 1
    assert isinstance(flow.base, StandardLogistic)


def test_real_nvp_has_the_papers_scales() -> None:
    # Three couplings over checkerboards, three over channels; the last scale has four over checkerboards.
    flow = real_nvp((1, 8, 8), scales=2, hidden=4)
    kinds = [type(c.partition) for c in parts(flow, Coupling) if isinstance(c, Coupling)]
    assert kinds == 3 * [Checkerboard] + 3 * [Halves] + 4 * [Checkerboard]
    assert laws(flow) == {Affine}
    assert len(parts(flow, FactorOut)) == 1


def test_glow_has_the_papers_steps() -> None:
    flow = glow((3, 8, 8), scales=2, steps=3, hidden=4)
    assert len(parts(flow, ActNorm)) == len(parts(flow, InvertibleConv1x1)) == 6
    assert len(parts(flow, Coupling)) == 6 + 1  # one split prior
    sizes = [len(c.sign) for c in parts(flow, InvertibleConv1x1) if isinstance(c, InvertibleConv1x1)]
    assert sizes == [12] * 3 + [24] * 3


SMALL: dict[str, Callable[[], Flow]] = {
    "nice": lambda: nice((2,), hidden=(8,)),
    "real_nvp": lambda: real_nvp((2,), couplings=4, hidden=8),
    "glow": lambda: glow((2,), steps=2, hidden=8),
    "neural_spline": lambda: neural_spline((2,), steps=1, hidden=8, bins=4),
    "maf": lambda: maf((2,), layers=2, hidden=(8,)),
    "planar": lambda: planar(2, depth=3),
    "radial": lambda: radial(2, depth=3),
}


@pytest.mark.parametrize("name", SMALL)
def test_fit_does_not_depend_on_unit_and_origin(name: str) -> None:
    """Compare fits, not only initial densities: a network of tiny inputs would hardly learn."""
    noise = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    x = 0.5 * torch.stack([noise[:, 0], noise[:, 0].square() + 0.3 * noise[:, 1]], 1)
    found = []
    for unit, origin in ((1.0, 0.0), (1e-3, 0.0), (1e-9, 0.0), (1.0, 1000.0)):
        torch.manual_seed(0)
        flow, at = SMALL[name](), unit * x + origin
        fit(flow, at[:200], at[200:], FitSettings(steps=40, batch_size=100, learning_rate=1e-2))
        found.append(mean_log_prob(flow, at[200:]) + 2 * math.log(unit))
    assert found == pytest.approx(4 * found[:1], abs=0.05)


@pytest.mark.parametrize("recipe", IMAGES)
def test_integers_in_and_integers_out(recipe: Recipe) -> None:
    torch.manual_seed(0)
    flow = recipe((1, 4, 4), levels=17).train()
    assert len(parts(flow, UniformDequantization)) == 1
    x = torch.randint(17, (40, 1, 4, 4))
    assert flow.log_prob(x).shape == (40,)
    samples = flow.eval().sample(6)
    assert samples.shape == (6, 1, 4, 4)
    assert torch.equal(samples, samples.round())
    # An untrained flow codes noise no better than the uniform distribution.
    assert flow.bits_per_dim(x).mean().item() >= 4.08


@pytest.mark.parametrize("recipe", IMAGES)
def test_context_changes_the_density(recipe: Recipe) -> None:
    torch.manual_seed(0)
    flow = recipe((1, 4, 4), context=2).eval()
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, context = torch.randn(3, 1, 4, 4), torch.randn(3, 2)
    changed = context.clone()
    changed[1] += 1
    differs = flow.log_prob(x, context) != flow.log_prob(x, changed)
    assert differs[1]
    torch.testing.assert_close(flow.log_prob(x, context)[[0, 2]], flow.log_prob(x, changed)[[0, 2]])
    with pytest.raises(ValueError, match="expected a context of shape"):
        flow.log_prob(x)
    assert flow.sample(3, context=context).shape == (3, 1, 4, 4)


@pytest.mark.parametrize("recipe", IMAGES)
@pytest.mark.parametrize("event", [(), (2, 3), (1, 2, 3, 4), (0,)])
def test_invalid_event_shapes_are_rejected(recipe: Recipe, event: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected an event of shape \(D,\) or \(C, H, W\); got"):
        recipe(event)
