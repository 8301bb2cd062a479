"""Activation normalisation: set once, by the first training batch."""

import copy

import pytest
import torch

from flows import ActNorm

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_what_was_loaded_before_it_was_set_is_still_to_be_set() -> None:
    one, two = ActNorm(2).train(), ActNorm(2).train()
    two.forward(3 + torch.randn(20, 2))
    two.load_state_dict(one.state_dict())
    two.forward(100 + torch.randn(20, 2))
    assert two.shift.min() < -50


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
