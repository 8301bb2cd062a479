"""The comparison on known densities measures what it says, and pairs have one size."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.flows import two_dimensional
from bench.flows.models import Density, parameters
from bench.flows.two_dimensional import Plan, draw, losses
from training.density.targets import TARGETS

# Few samples, the fits as they are.
SMALL = Plan(train=3_000, validation=200, test=4_000)


@pytest.fixture
def _libraries() -> None:
    pytest.importorskip("zuko")
    pytest.importorskip("normflows")


@pytest.mark.parametrize("name", TARGETS)
def test_the_exact_density_has_no_divergence_from_itself(name: str) -> None:
    target = TARGETS[name]
    samples = draw(target, SMALL, seed=0)
    generator = torch.Generator().manual_seed(0)
    train = target.sample(SMALL.train, generator)
    mean, deviation = train.mean(0), train.std(0)
    # What the other libraries' models are, too: a density of standardised samples.
    exact = Density(nn.Identity(), lambda z: target.log_prob(mean + deviation * z) + deviation.log().sum())
    # A point of the checkerboard may be rounded over an edge, into density 0.
    found = losses(exact, samples)
    assert found.median().abs() < 1e-4
    assert (found.abs() < 1e-2).double().mean() > 0.999


def test_a_normal_diverges_from_the_banana_as_calculus_says() -> None:
    """KL(p || N(0, I)) of standardised samples is -H(p) + log 2 pi + 1, for any p of unit deviations."""
    samples = draw(TARGETS["banana"], Plan(train=200_000, test=200_000), seed=1)
    normal = Density(nn.Identity(), lambda z: -0.5 * z.square().sum(1) - math.log(2 * math.pi))
    deviations = 1.5, math.hypot(0.3, 0.6 * math.sqrt(2) * 1.5**2)
    entropy = 1 + math.log(2 * math.pi * 1.5 * 0.3) - math.log(deviations[0] * deviations[1])
    assert losses(normal, samples).mean().item() == pytest.approx(
        math.log(2 * math.pi) + 1 - entropy, abs=0.03
    )


def test_samples_differ_between_seeds_and_not_within_one() -> None:
    first, again, other = (draw(TARGETS["rings"], SMALL, seed) for seed in (2, 2, 3))
    assert torch.equal(first.test, again.test)
    assert not torch.equal(first.test, other.test)
    # Training, validation and test samples are drawn one after the other, never twice.
    both = torch.cat([first.train, first.test])
    assert len(torch.unique(both, dim=0)) == len(both)


@pytest.mark.usefixtures("_libraries")
def test_pairs_have_one_size_and_ours_is_never_larger() -> None:
    for pair in Plan().pairs():
        ours = parameters(pair.ours.make(2, pair.width))
        theirs = parameters(pair.theirs.make(2, pair.their_width))
        assert ours <= theirs < 1.05 * ours, pair.theirs.name


@pytest.mark.usefixtures("_libraries")
def test_every_model_is_a_density() -> None:
    """Each integrates to 1, fresh from its start: the wrappers took the right direction and all log-dets."""
    side = torch.linspace(-8, 8, 129)
    points = torch.cartesian_prod(side, side)
    for recipe, width in Plan().models():
        torch.manual_seed(0)
        model = recipe.make(2, width).eval()
        with torch.no_grad():
            log_prob = model.log_prob(points)  # type: ignore[operator]
        assert log_prob.exp().sum().item() * 0.125**2 == pytest.approx(1, abs=0.02), recipe.name


@pytest.mark.usefixtures("_libraries")
def test_the_quick_comparison_runs(tmp_path: Path) -> None:
    arguments = ["--quick", "--targets", "checkerboard", "--out", str(tmp_path)]
    assert two_dimensional.main(arguments) == 0
    figures = json.loads((tmp_path / "two_dimensional.json").read_text())
    assert set(figures["kl_nats"]) == {"checkerboard"}
    assert {len(values) for values in figures["kl_nats"]["checkerboard"].values()} == {2}
    assert len(figures["pairs"]) == 6
