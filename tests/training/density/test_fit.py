"""Fitting by maximum likelihood: what is learned, what is kept, what is refused."""

import copy
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from flows import MLP, ActNorm, ChannelAffine, ConditionalDiagonalNormal, Flow, StandardNormal
from flows.recipes import glow, maf, neural_spline, nice, planar, radial, real_nvp
from training.density.fit import DensityFitError, FitPoint, FitSettings, batch_rows, fit, mean_log_prob


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


def test_a_look_gives_the_mean_since_the_last_one() -> None:
    class Kept(Flow):
        losses: list[float]

        def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
            found = super().log_prob(x, context)
            if self.training:
                self.losses.append(-found.mean().item())
            return found

    flow = Kept(ChannelAffine(2), StandardNormal((2,)))
    flow.losses = []
    settings = FitSettings(steps=5, every=2, learning_rate=0.1)
    points = fit(flow, samples(50, 0), samples(50, 1), settings)
    one, two, three, four, five = flow.losses
    assert [point.train for point in points] == pytest.approx([(one + two) / 2, (three + four) / 2, five])
    assert five < three < one


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


def test_a_seed_gives_the_same_bits_and_leaves_the_generator() -> None:
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


def test_a_step_waits_for_its_loss_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """To look at a number is to wait for the GPU that computes it; on a CPU the looks can be counted."""
    looks = []
    of_number, of_truth = torch.Tensor.item, torch.Tensor.__bool__

    def number(self: Tensor) -> float:
        looks.extend([1] if self.requires_grad else [])
        return of_number(self)

    def truth(self: Tensor) -> bool:
        looks.append(1)
        return of_truth(self)

    monkeypatch.setattr(torch.Tensor, "item", number)
    monkeypatch.setattr(torch.Tensor, "__bool__", truth)
    fit(affine(), samples(50, 0), samples(50, 1), FitSettings(steps=9, batch_size=16))
    assert len(looks) == 9


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


def test_contexts_go_with_their_samples() -> None:
    torch.manual_seed(0)
    flow = Flow(ChannelAffine(1), ConditionalDiagonalNormal((1,), MLP(1, (16,), 2)))
    context = torch.linspace(-1, 1, 600)[:, None]
    x = 5 * context + 0.1 * torch.randn(600, 1)
    settings = FitSettings(steps=600, learning_rate=1e-2)
    fit(flow, x, x[::5], settings, context=context, validation_context=context[::5])
    drawn = flow.sample(2, context=torch.tensor([[-0.8], [0.8]])).detach()
    assert drawn.flatten().tolist() == pytest.approx([-4, 4], abs=0.8)


@pytest.mark.parametrize("rows", [(5, 1), (), (11, 1)])
def test_a_context_of_other_rows_is_refused(rows: tuple[int, ...]) -> None:
    """Of more rows the first would be paired with the samples, as if they were theirs."""
    flow = Flow(ChannelAffine(2), ConditionalDiagonalNormal((2,), MLP(1, (4,), 4)))
    train, validation, context = samples(10, 0), samples(8, 1), torch.zeros(rows)
    settings = FitSettings(steps=1, batch_size=4)
    got = re.escape(f"got {rows}")
    with pytest.raises(DensityFitError, match=f"context of 10 rows for its training samples; {got}"):
        fit(flow, train, validation, settings, context=context, validation_context=torch.zeros(8, 1))
    with pytest.raises(DensityFitError, match=f"context of 8 rows for its validation samples; {got}"):
        fit(flow, train, validation, settings, context=torch.zeros(10, 1), validation_context=context)
    with pytest.raises(ValueError, match=f"expected a context of 10 rows; {got}"):
        mean_log_prob(flow, train, context, batch=4)


CONDITIONAL: dict[str, Callable[..., Flow]] = {
    "nice": lambda event, **k: nice(event, hidden=(4,), **k),
    "real_nvp": lambda event, **k: real_nvp(event, couplings=2, hidden=4, blocks=1, **k),
    "real_nvp, recomputed": lambda event, **k: real_nvp(event, couplings=2, hidden=4, recompute=True, **k),
    "glow": lambda event, **k: glow(event, steps=1, hidden=4, **k),
    "glow, recomputed": lambda event, **k: glow(event, steps=1, hidden=4, recompute=True, **k),
    "neural_spline": lambda event, **k: neural_spline(event, steps=1, hidden=4, bins=3, **k),
    "maf": lambda event, **k: maf(event, layers=1, hidden=(4,), **k),
}
NO_CONTEXT = "^the flow depends on no context; make it with context=K$"


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
@pytest.mark.parametrize("event", [(4,), (1, 4, 4)])
@pytest.mark.parametrize("name", CONDITIONAL)
def test_a_context_that_the_flow_would_throw_away_is_refused(
    name: str, event: tuple[int, ...], dtype: torch.dtype
) -> None:
    """p(x) would be learned in silence, where p(x | context) was meant. A flow that takes one is fitted."""
    x, context = torch.randn(12, *event), torch.arange(24).view(12, 2).to(dtype)
    settings = FitSettings(steps=1, batch_size=6)
    contexts: dict[str, Any] = {"context": context, "validation_context": context}
    with pytest.raises(DensityFitError, match=NO_CONTEXT):
        fit(CONDITIONAL[name](event), x, x, settings, **contexts)
    points = fit(CONDITIONAL[name](event, context=2), x, x, settings, **contexts)
    assert len(points) == 1
    with pytest.raises(DensityFitError, match=r"refuses a training batch of 6: expected a context"):
        fit(CONDITIONAL[name](event, context=3), x, x, settings, **contexts)


@pytest.mark.parametrize("recipe", [planar, radial])
def test_recipes_that_take_no_context_refuse_one(recipe: Callable[..., Flow]) -> None:
    x, context = samples(10, 0), torch.zeros(10, 1)
    with pytest.raises(DensityFitError, match=NO_CONTEXT):
        fit(recipe(2, depth=1), x, x, FitSettings(steps=1), context=context, validation_context=context)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_a_context_of_classes_is_one(dtype: torch.dtype) -> None:
    """No gradient reaches what is rounded to a class, and yet the density depends on it."""

    class Classes(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(3, 4)
            torch.nn.init.zeros_(self.table.weight)

        def forward(self, context: Tensor) -> Tensor:
            found: Tensor = self.table(context.long())
            return found

    flow = Flow(ChannelAffine(2), ConditionalDiagonalNormal((2,), Classes()))
    x, classes = samples(30, 0), torch.arange(30).to(dtype) % 3
    fit(flow, x, x, FitSettings(steps=2), context=classes, validation_context=classes)
    assert flow.state_dict()["base.network.table.weight"].abs().min() > 0


def test_the_look_at_a_context_changes_no_bit_of_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the noise of dequantisation, what `ActNorm` is set by, nor a gradient."""
    x = torch.randint(16, (40, 1, 4, 4), generator=torch.Generator().manual_seed(0)).float()
    context, settings = x.mean((2, 3)), FitSettings(steps=3, batch_size=16)
    found = []
    for looks in (True, False):
        if not looks:
            monkeypatch.setattr("training.density.fit._expect_use", lambda *_: None)
        torch.manual_seed(0)
        flow = glow((1, 4, 4), steps=1, hidden=4, levels=16, context=1, recompute=True)
        fit(flow, x, x[:9], settings, context=context, validation_context=context[:9])
        found.append(flow.state_dict())
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_batches_of_the_mean_change_nothing() -> None:
    flow, x = affine(), samples(70, 0)
    assert mean_log_prob(flow, x, batch=9) == pytest.approx(mean_log_prob(flow, x), rel=1e-6)


def test_large_samples_are_looked_at_a_few_at_a_time() -> None:
    assert batch_rows(64) == 1000
    assert batch_rows(3 * 256**2) == 5
    assert batch_rows(3 * 4096**2) == 1


class Sized(StandardNormal):
    """Keeps how many samples were looked at together."""

    rows: list[int]

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        if not self.training:
            self.rows.append(len(z))
        return super().log_prob(z, context)


def test_a_look_takes_no_more_samples_than_a_step_or_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    base = Sized((2,))
    base.rows = []
    flow = Flow(ChannelAffine(2), base)
    monkeypatch.setattr("training.density.fit._ELEMENTS", 6)
    fit(flow, samples(10, 0), samples(10, 1), FitSettings(steps=1, batch_size=4))
    fit(flow, samples(10, 0), samples(10, 1), FitSettings(steps=1, batch_size=2))
    mean_log_prob(flow, samples(4, 0))
    assert base.rows == [4, 4, 2, 3, 3, 3, 1, 3, 1]


@pytest.mark.parametrize(("train", "validation"), [(0, 5), (5, 0)])
def test_nothing_to_fit_is_refused(train: int, validation: int) -> None:
    with pytest.raises(DensityFitError, match=f"got {train} and {validation}"):
        fit(affine(), torch.zeros(train, 2), torch.zeros(validation, 2), FitSettings(steps=1))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("shape", [(6, 2), (6, 1, 2, 2)])
def test_the_first_row_that_is_not_finite_is_named(bad: float, shape: tuple[int, ...]) -> None:
    """One such row made the likelihood NaN, and a lower learning rate was advised."""
    flow, settings = affine(), FitSettings(steps=3)
    good, broken = torch.zeros(shape), torch.zeros(shape)
    broken[4, ..., 0] = broken[3, ..., 1] = bad
    whole = torch.arange(6)  # integers are finite
    for arguments, contexts, name in (
        ((broken, good), (None, None), "training samples"),
        ((good, broken), (None, None), "validation samples"),
        ((good, good), (broken, whole), "training context"),
        ((good, good), (whole, broken), "validation context"),
    ):
        with pytest.raises(DensityFitError, match=f"^row 3 of the {name} has a value that is not finite$"):
            fit(flow, *arguments, settings, context=contexts[0], validation_context=contexts[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.uint8])
@pytest.mark.parametrize("name", ["nice", "glow"])
def test_integers_of_another_range_are_refused(name: str, dtype: torch.dtype) -> None:
    """Bytes given to fewer levels ended in NaN behind the logit, and `ActNorm` was blamed."""
    event, settings = (1, 4, 4), FitSettings(steps=1)
    flow, good = CONDITIONAL[name](event, levels=16), torch.full((5, *event), 15, dtype=dtype)
    bad = good.clone()
    bad[3, 0, 2, 1] = bad[4, 0, 0, 0] = 16
    said = r"^row 3 of the {} samples has the value 16; the flow takes integers 0 ... 15$"
    with pytest.raises(DensityFitError, match=said.format("training")):
        fit(flow, bad, good, settings)
    with pytest.raises(DensityFitError, match=said.format("validation")):
        fit(flow, good, bad, settings)
    good[2:] = torch.arange(16).view(event)
    assert len(fit(flow, good, good, settings)) == 1


def test_truth_values_are_integers_of_two_levels() -> None:
    x = torch.rand(6, 1, 4, 4) > 0.5
    assert len(fit(CONDITIONAL["nice"]((1, 4, 4), levels=2), x, x, FitSettings(steps=1))) == 1


def test_pictures_between_0_and_1_are_no_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given to 256 levels they all are in the first cell, and 0.6 bits per dimension were told."""
    monkeypatch.setattr("training.density.fit._ELEMENTS", 2 * 16)  # they are looked at two by two
    x = torch.zeros(5, 1, 4, 4)
    x[3, 0, 0, 1] = 0.5
    said = r"^row 3 of the training samples has the value 0.5; the flow takes integers 0 ... 255$"
    with pytest.raises(DensityFitError, match=said):
        fit(CONDITIONAL["nice"]((1, 4, 4), levels=256), x, x, FitSettings(steps=1))


@pytest.mark.parametrize(
    ("samples_are", "flow_is", "said"),
    [
        (torch.float64, torch.float32, "float64 and the flow float32: samples.float(), or flow.double()"),
        (torch.float32, torch.float64, "float32 and the flow float64: samples.double(), or flow.float()"),
        (torch.int64, torch.float32, "int64 and the flow float32: samples.float()"),
    ],
)
def test_samples_of_another_dtype_than_the_flow_are_refused(
    samples_are: torch.dtype, flow_is: torch.dtype, said: str
) -> None:
    flow, settings = glow((2,), steps=1, hidden=4).to(flow_is), FitSettings(steps=1)
    good, bad = samples(10, 0).to(flow_is), samples(10, 0).to(samples_are)
    with pytest.raises(DensityFitError, match=f"^the training samples are {re.escape(said)}$"):
        fit(flow, bad, good, settings)
    with pytest.raises(DensityFitError, match=f"^the validation samples are {re.escape(said)}$"):
        fit(flow, good, bad, settings)


def test_a_likelihood_that_is_not_finite_ends_it_in_words() -> None:
    class Broken(StandardNormal):
        """Without a likelihood in one mode."""

        broken: bool

        def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
            return super().log_prob(z, context) * (math.nan if self.training is self.broken else 1)

    base = Broken((2,))
    flow, x = Flow(ChannelAffine(2), base), torch.zeros(4, 2)
    base.broken = True
    with pytest.raises(DensityFitError, match="no longer finite at step 1"):
        fit(flow, x, x, FitSettings(steps=3))
    base.broken = False
    with pytest.raises(DensityFitError, match="validation samples was finite at no look"):
        fit(flow, x, x, FitSettings(steps=3))


@pytest.mark.parametrize(("rows", "batch_size"), [(1, 256), (9, 1)])
def test_a_first_batch_that_the_flow_refuses_ends_it_in_words(rows: int, batch_size: int) -> None:
    """A single vector tells `ActNorm` no deviation; of a picture one has many values for each channel."""
    settings = FitSettings(steps=2, batch_size=batch_size)
    refused = "refuses a training batch of 1: ActNorm expected a first training batch of several values"
    with pytest.raises(DensityFitError, match=refused):
        fit(planar(2, depth=1), samples(rows, 0), samples(5, 1), settings)
    x = torch.randn(rows, 1, 4, 4)
    points = fit(Flow(ActNorm(1), StandardNormal((1, 4, 4))), x, x, settings)
    assert [point.step for point in points] == [2]


def test_what_was_best_is_kept_where_the_likelihood_ends_later() -> None:
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


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "steps of at least 1; got 0"),
        ({"batch_size": 0}, "batch_size of at least 1; got 0"),
        ({"every": -1}, "every of at least 1; got -1"),
        ({"learning_rate": 0.0}, "learning_rate above 0 and finite; got 0.0"),
        ({"learning_rate": math.nan}, "got nan"),
        ({"learning_rate": math.inf}, "got inf"),
    ],
)
def test_settings_of_no_fit_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DensityFitError, match=said):
        FitSettings(**{"steps": 1, **changes})
