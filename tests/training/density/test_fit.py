"""Fits by maximum likelihood: learning, best weights, refusals."""

import copy
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from flows import ChannelAffine, Flow, StandardNormal
from flows.recipes import glow, nice
from training.density.fit import DensityFitError, FitPoint, FitSettings, fit


def samples(n: int, seed: int) -> Tensor:
    """Of a normal with means 3, -1 and deviations 0.5, 2."""
    noise = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    return noise * torch.tensor([0.5, 2.0]) + torch.tensor([3.0, -1.0])


def affine() -> Flow:
    return Flow(ChannelAffine(2), StandardNormal((2,)))


def test_it_finds_the_normal_that_the_samples_have() -> None:
    flow = affine()
    points = fit(flow, samples(2000, 0), samples(500, 1), FitSettings(steps=1200, learning_rate=0.05))
    drawn = flow.sample(20_000, generator=torch.Generator().manual_seed(2)).detach()
    assert drawn.mean(0).tolist() == pytest.approx([3, -1], abs=0.1)
    assert drawn.std(0).tolist() == pytest.approx([0.5, 2], rel=0.05)
    assert [point.step for point in points] == list(range(100, 1201, 100))
    assert points[-1].validation < points[0].train
    assert not flow.training


def test_the_weights_that_did_best_on_validation_are_kept() -> None:
    """A rate at which it runs past the best: the last weights are not those kept."""
    seen: list[tuple[float, dict[str, Tensor]]] = []
    flow = affine()

    def look(point: FitPoint) -> None:
        seen.append((point.validation, copy.deepcopy(flow.state_dict())))

    # The validation samples are others than the training samples: what fits one worsens the other.
    settings = FitSettings(steps=300, every=10, learning_rate=0.3)
    fit(flow, samples(200, 0), samples(200, 1) - 2, settings, on_point=look)
    best = min(range(len(seen)), key=lambda i: seen[i][0])
    assert best < len(seen) - 1
    assert all(torch.equal(value, seen[best][1][name]) for name, value in flow.state_dict().items())


def test_seed_gives_the_same_bits_and_leaves_the_generator() -> None:
    found = []
    torch.manual_seed(5)
    for _ in range(2):
        flow = affine()
        fit(flow, samples(100, 0), samples(50, 1), FitSettings(steps=20, batch_size=16, seed=3))
        found.append(flow.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    after = torch.rand(())
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(()))


def test_every_sample_is_seen_once_an_epoch() -> None:
    class Seen(StandardNormal):
        rows: list[float]

        def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
            if self.training:
                self.rows += z.detach()[:, 0].round().tolist()
            return super().log_prob(z, context)

    base = Seen((1,))
    base.rows = []
    train = torch.arange(10.0)[:, None]
    fit(Flow(ChannelAffine(1), base), train, train, FitSettings(steps=8, batch_size=3, learning_rate=1e-9))
    assert sorted(base.rows[:10]) == sorted(base.rows[10:]) == list(range(10))


@pytest.mark.parametrize(("train", "validation"), [(0, 5), (5, 0)])
def test_nothing_to_fit_is_refused(train: int, validation: int) -> None:
    with pytest.raises(DensityFitError, match=f"got {train} and {validation}"):
        fit(affine(), torch.zeros(train, 2), torch.zeros(validation, 2), FitSettings(steps=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.uint8])
@pytest.mark.parametrize("recipe", [partial(nice, hidden=(4,)), partial(glow, steps=1, hidden=4)])
def test_integers_of_another_range_are_refused(recipe: Callable[..., Flow], dtype: torch.dtype) -> None:
    """Bytes given to fewer levels ended in NaN behind the logit, and `ActNorm` was blamed."""
    event, settings = (1, 4, 4), FitSettings(steps=1)
    flow, good = recipe(event, levels=16), torch.full((5, *event), 15, dtype=dtype)
    bad = good.clone()
    bad[3, 0, 2, 1] = bad[4, 0, 0, 0] = 16
    said = r"^row 3 of the {} samples has the value 16; the flow takes integers 0 ... 15$"
    with pytest.raises(DensityFitError, match=said.format("training")):
        fit(flow, bad, good, settings)
    with pytest.raises(DensityFitError, match=said.format("validation")):
        fit(flow, good, bad, settings)
    good[2:] = torch.arange(16).view(event)
    assert len(fit(flow, good, good, settings)) == 1


def test_best_weights_are_kept_if_the_likelihood_ends() -> None:
    kept: list[dict[str, Tensor]] = []

    class Ending(StandardNormal):
        def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
            return super().log_prob(z, context) * (math.nan if self.training and len(kept) == 2 else 1)

    flow = Flow(ChannelAffine(2), Ending((2,)))

    def look(_: FitPoint) -> None:
        kept.append(copy.deepcopy(flow.state_dict()))

    settings = FitSettings(steps=50, every=10)
    points = fit(flow, samples(200, 0), samples(50, 1), settings, on_point=look)
    assert [point.step for point in points] == [10, 20]
    assert all(torch.equal(value, kept[1][name]) for name, value in flow.state_dict().items())
    assert not flow.training
