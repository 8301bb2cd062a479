"""Activation normalisation: set once, by the first training batch."""

import copy
import math

import pytest
import torch

from flows import ActNorm, Compose, Flow, InvertibleConv1x1, StandardNormal
from flows.recipes import planar
from training.density.fit import FitSettings, fit, mean_log_prob


@pytest.mark.parametrize("size", [(), (4, 5)])
def test_the_first_training_batch_comes_out_with_mean_0_and_deviation_1(size: tuple[int, ...]) -> None:
    layer = ActNorm(3).double().train()
    x = torch.randn(50, 3, *size, dtype=torch.float64) * torch.tensor([1.0, 5.0, 0.01]).view(
        3, *[1] * len(size)
    )
    z, log_det = layer.forward(x + 7)
    values = z.transpose(0, 1).flatten(1)
    assert values.mean(1).tolist() == pytest.approx(3 * [0], abs=1e-9)
    assert values.std(1, correction=0).tolist() == pytest.approx(3 * [1])
    positions = x[0, 0].numel()
    deviations = x.transpose(0, 1).flatten(1).std(1, correction=0)
    assert log_det[0].item() == pytest.approx(-positions * deviations.log().sum().item())


def test_later_batches_change_nothing() -> None:
    layer = ActNorm(2).train()
    layer.forward(torch.randn(20, 2))
    state = copy.deepcopy(layer.state_dict())
    layer.forward(100 + torch.randn(20, 2))
    assert all(torch.equal(state[name], value) for name, value in layer.state_dict().items())


def test_evaluation_never_sets_it() -> None:
    layer = ActNorm(2).eval()
    x = 5 + torch.randn(20, 2)
    assert torch.equal(layer.forward(x)[0], x)
    assert not layer.initialised
    layer.train().forward(x)
    assert layer.initialised


def test_the_inverse_never_sets_it() -> None:
    layer = ActNorm(2).train()
    layer.inverse(5 + torch.randn(20, 2))
    assert not layer.initialised


def test_what_was_loaded_stays_when_training_goes_on() -> None:
    one, two = ActNorm(2).train(), ActNorm(2).train()
    one.forward(3 + torch.randn(20, 2))
    two.load_state_dict(one.state_dict())
    two.forward(100 + torch.randn(20, 2))
    assert torch.equal(one.shift, two.shift)
    assert torch.equal(one.center, two.center)
    assert one.center.min() > 2


def test_what_was_loaded_before_it_was_set_is_still_to_be_set() -> None:
    one, two = ActNorm(2).train(), ActNorm(2).train()
    two.forward(3 + torch.randn(20, 2))
    two.load_state_dict(one.state_dict())
    two.forward(100 + torch.randn(20, 2))
    assert two.center.min() > 50


@pytest.mark.parametrize("learned", ["log_scale", "shift"])
def test_what_was_learned_through_the_inverse_stays(learned: str) -> None:
    """As in training by samples, with the reverse divergence, before any density is asked for."""
    layer = ActNorm(2).double().train()
    optimiser = torch.optim.SGD([getattr(layer, learned)], 0.1)
    x, log_det = layer.inverse(torch.randn(64, 2, dtype=torch.float64))
    torch.autograd.backward(((x - 3).square().sum(1) / 2 - log_det).mean())
    optimiser.step()
    before = [layer.log_scale.clone(), layer.shift.clone()]
    x = 100 + torch.randn(20, 2, dtype=torch.float64)
    z, _ = layer.forward(x)
    assert all(torch.equal(a, b) for a, b in zip(before, [layer.log_scale, layer.shift], strict=True))
    assert torch.equal(z, layer.eval().forward(x)[0])
    assert layer.initialised
    # It is known from the state_dict too, where the parameters of another one are still as made.
    two = ActNorm(2).double().train()
    two.load_state_dict(layer.state_dict())
    two.forward(x)
    assert torch.equal(two.shift, layer.shift)


def set_by(x: torch.Tensor) -> ActNorm:
    """One that this batch has set."""
    layer = ActNorm(x.shape[1]).to(x).train()
    layer.forward(x)
    return layer.eval()


@pytest.mark.parametrize("size", [(), (2, 3)])
def test_it_is_the_formula(size: tuple[int, ...]) -> None:
    layer = set_by(3 + 2 * torch.randn(20, 4, *size, dtype=torch.float64))
    torch.nn.init.normal_(layer.log_scale)
    torch.nn.init.normal_(layer.shift)
    x = torch.randn(5, 4, *size, dtype=torch.float64)
    m, s, t = (p.view(4, *[1] * len(size)) for p in (layer.center, layer.log_scale, layer.shift))
    z, log_det = layer.forward(x)
    torch.testing.assert_close(z, s.exp() * (x - m) + t)
    back, log_det_back = layer.inverse(z)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(log_det, -log_det_back)
    torch.testing.assert_close(log_det, (x[0, 0].numel() * layer.log_scale.sum()).expand(5))


def test_far_from_0_single_precision_keeps_its_digits() -> None:
    """exp(s) x and t are near a million there, and of their sum few digits would be left."""
    x = 1e5 + 0.1 * torch.randn(200, 2, dtype=torch.float64).float()
    layer = set_by(x)
    z, _ = layer.forward(x)
    exact = (x.double() - layer.center.double()) * layer.log_scale.double().exp()
    torch.testing.assert_close(z.double(), exact, rtol=1e-6, atol=1e-6)
    assert torch.equal(layer.inverse(z)[0], x)


def test_a_step_in_the_scale_leaves_the_middle_of_the_data() -> None:
    x = 1000 + torch.randn(200, 2, dtype=torch.float64)
    layer = set_by(x)
    torch.nn.init.constant_(layer.log_scale, 0.5)
    z, _ = layer.forward(x)
    assert z.mean(0).tolist() == pytest.approx([0, 0], abs=1e-9)


def test_a_fit_does_not_depend_on_where_the_data_lie() -> None:
    """With z = exp(s) x + t a step in s moves all of z. Other recipes: recipes/test_recipes.py."""
    noise = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    x = 0.5 * torch.stack([noise[:, 0], noise[:, 0].square() + 0.3 * noise[:, 1]], 1)
    found = []
    for offset in (0, 1000):
        torch.manual_seed(0)
        flow, at = planar(2, depth=3), x + offset
        fit(flow, at[:200], at[200:], FitSettings(steps=40, batch_size=100, learning_rate=1e-2))
        found.append(mean_log_prob(flow, at[200:]))
    assert found[0] == pytest.approx(found[1], abs=0.05)


def test_weights_of_before_without_a_center_keep_their_densities() -> None:
    torch.manual_seed(0)
    flow = Flow(Compose([ActNorm(3), InvertibleConv1x1(3), ActNorm(3)]), StandardNormal((3,))).eval()
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(10, 3)
    expected = flow.log_prob(x)
    of_before = {name: value for name, value in flow.state_dict().items() if not name.endswith("center")}
    assert len(of_before) == len(flow.state_dict()) - 2
    for assign in (False, True):
        other = Flow(Compose([ActNorm(3), InvertibleConv1x1(3), ActNorm(3)]), StandardNormal((3,)))
        other.train().log_prob(50 + x)  # it has centers of its own
        other.load_state_dict(of_before, assign=assign)
        assert torch.equal(other.eval().log_prob(x), expected)
    assert not any(name.endswith("center") for name in of_before)


def test_a_part_of_weights_leaves_what_it_does_not_have() -> None:
    layer = set_by(5 + torch.randn(20, 2))
    before = layer.center.clone()
    missing = layer.load_state_dict({}, strict=False).missing_keys
    assert sorted(missing) == ["center", "initialised", "log_scale", "shift"]
    assert torch.equal(layer.center, before)


def test_parameters_alone_leave_the_mean_and_it_is_told_as_missing() -> None:
    """As of averaged weights; a state_dict of before there was a mean has the flag."""
    layer = set_by(5 + torch.randn(20, 2))
    before = layer.center.clone()
    missing = layer.load_state_dict(dict(layer.named_parameters()), strict=False).missing_keys
    assert sorted(missing) == ["center", "initialised"]
    assert torch.equal(layer.center, before)


def test_a_learned_one_takes_a_batch_of_one_value() -> None:
    layer = ActNorm(2).train()
    torch.nn.init.constant_(layer.shift, 2.0)
    assert layer.forward(torch.zeros(1, 2))[0].tolist() == [[2, 2]]


def test_a_constant_channel_keeps_its_scale() -> None:
    layer = ActNorm(2).train()
    x = torch.stack([torch.full((9,), 4.0), torch.arange(9.0)], 1)
    z, _ = layer.forward(x)
    assert z[:, 0].tolist() == 9 * [0]
    assert layer.log_scale[0].item() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("value", [0.0, 0.1, -1234.567, 3.3e5, 1e-20])
@pytest.mark.parametrize("rows", [3, 256, 100_000])
def test_a_constant_keeps_its_scale_whatever_rounding_makes_of_its_deviation(
    value: float, rows: int, dtype: torch.dtype
) -> None:
    layer = set_by(torch.full((rows, 2), value, dtype=dtype))
    assert layer.log_scale.tolist() == [0, 0]


@pytest.mark.parametrize("unit", [1e-9, 1e-7, 1e9])
def test_data_of_any_unit_are_brought_to_deviation_1(unit: float) -> None:
    """An absolute floor took what is small for a constant."""
    x = unit * (5 + torch.randn(500, 2))
    z, _ = set_by(x).forward(x)
    assert z.mean(0).tolist() == pytest.approx([0, 0], abs=1e-4)
    assert z.std(0, correction=0).tolist() == pytest.approx([1, 1], rel=1e-4)


def test_what_varies_by_a_few_hundredths_of_its_mean_is_normalised_in_half_precision() -> None:
    x = (100 + 2 * torch.randn(500, 2)).bfloat16()
    assert set_by(x).log_scale.tolist() == pytest.approx([-math.log(2)] * 2, abs=0.1)


def test_a_floor_that_is_given_is_the_floor() -> None:
    x = torch.stack([torch.arange(9.0), torch.arange(9.0) / 100], 1)
    layer = ActNorm(2, floor=0.1).train()
    layer.forward(x)
    assert layer.log_scale[0].item() != 0
    assert layer.log_scale[1].item() == 0


def test_a_first_batch_of_one_value_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a first training batch of several values.*got \(1, 2\)"):
        ActNorm(2).train().forward(torch.zeros(1, 2))


def test_a_first_batch_of_none_leaves_it_to_the_next() -> None:
    layer = ActNorm(2).train()
    layer.forward(torch.zeros(0, 2))
    assert not layer.initialised


def test_a_first_batch_that_is_not_finite_is_refused() -> None:
    layer = ActNorm(2).train()
    with pytest.raises(ValueError, match="expected a first training batch of finite values"):
        layer.forward(torch.tensor([[1.0, 2.0], [torch.nan, 3.0]]))
    assert not layer.initialised
    assert layer.shift.isfinite().all()


def test_a_copy_that_shares_the_state_sees_that_it_is_set() -> None:
    """As the replicas of data parallelism do, which are made before the first batch."""
    one, two = ActNorm(2).train(), ActNorm(2).train()
    for name, value in {**dict(one.named_parameters()), **dict(one.named_buffers())}.items():
        getattr(two, name).data = value.data
    one.forward(torch.randn(20, 2))
    z, _ = two.forward(10 * torch.randn(20, 2))
    assert z.std() > 5
