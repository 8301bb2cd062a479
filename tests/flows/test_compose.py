"""Composition."""

import pytest
import torch

from flows import MLP, Affine, ChannelAffine, Compose, Coupling, Halves, Inverse, Permutation, Transform


def scale_and_shift(scale: float, shift: float) -> ChannelAffine:
    """x -> scale x + shift for one dimension."""
    affine = ChannelAffine(1).double()
    torch.nn.init.constant_(affine.log_scale, float(torch.tensor(scale, dtype=torch.float64).log()))
    torch.nn.init.constant_(affine.shift, shift)
    return affine


def test_compose_applies_the_first_transform_first() -> None:
    """2 x + 1, then 3 (.) - 4."""
    both = Compose([scale_and_shift(2, 1), scale_and_shift(3, -4)])
    x = torch.tensor([[5.0]], dtype=torch.float64)
    z, log_det = both.forward(x)
    assert z.item() == pytest.approx(3 * (2 * 5 + 1) - 4)
    assert log_det.exp().item() == pytest.approx(6)
    back, log_det = both.inverse(z)
    assert back.item() == pytest.approx(5)
    assert log_det.exp().item() == pytest.approx(1 / 6)


def test_inverse_exchanges_the_directions() -> None:
    inner = scale_and_shift(2, 1)
    turned = Inverse(inner)
    x = torch.tensor([[5.0]], dtype=torch.float64)
    assert turned.forward(x)[0].item() == pytest.approx(2)
    assert turned.forward(x)[1].exp().item() == pytest.approx(0.5)
    assert turned.inverse(x)[0].item() == pytest.approx(11)


def test_context_reaches_every_step() -> None:
    halves = Halves(2)
    networks = [MLP(1, (4,), 2, context=1) for _ in range(2)]
    for network in networks:
        torch.nn.init.normal_(network.layers[-1].weight)  # type: ignore[arg-type]
    for step in range(2):
        steps: list[Transform] = [Permutation([0, 1]), Coupling(halves, networks[step], Affine())]
        flow = Inverse(Compose([*steps, Compose(steps)]))
        x, context = torch.randn(3, 2), torch.randn(3, 1)
        assert not torch.equal(flow.forward(x, context)[0], flow.forward(x, context + 1)[0])
        with pytest.raises(ValueError, match="expected a context"):
            flow.inverse(x)
