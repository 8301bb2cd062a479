"""Composition."""

import pytest
import torch

from flows import ChannelAffine, Compose, Inverse


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
