"""Composition."""

import pytest
import torch

from flows import ChannelAffine, Compose, Permutation, Transform


def scale_and_shift(scale: float, shift: float) -> ChannelAffine:
    """x -> scale x + shift for one dimension."""
    affine = ChannelAffine(1).double()
    torch.nn.init.constant_(affine.log_scale, float(torch.tensor(scale, dtype=torch.float64).log()))
    torch.nn.init.constant_(affine.shift, shift)
    return affine


def test_the_first_transform_is_applied_first() -> None:
    """2 x + 1, then 3 (.) - 4."""
    both = Compose([scale_and_shift(2, 1), scale_and_shift(3, -4)])
    x = torch.tensor([[5.0]], dtype=torch.float64)
    z, log_det = both.forward(x)
    assert z.item() == pytest.approx(3 * (2 * 5 + 1) - 4)
    assert log_det.exp().item() == pytest.approx(6)
    back, log_det = both.inverse(z)
    assert back.item() == pytest.approx(5)
    assert log_det.exp().item() == pytest.approx(1 / 6)


def test_nesting_changes_nothing() -> None:
    parts: list[Transform] = [scale_and_shift(k + 1, k) for k in range(4)]
    flat, nested = Compose(parts), Compose([Compose(parts[:1]), Compose([Compose(parts[1:3]), parts[3]])])
    x = torch.randn(3, 1, dtype=torch.float64)
    for one, two in ((flat.forward(x), nested.forward(x)), (flat.inverse(x), nested.inverse(x))):
        torch.testing.assert_close(one, two, rtol=1e-14, atol=1e-14)


def test_it_takes_any_iterable() -> None:
    both = Compose(Permutation([1, 0]) for _ in range(2))
    x = torch.randn(1, 2)
    assert torch.equal(both.forward(x)[0], x)


def test_nothing_to_compose_is_refused() -> None:
    with pytest.raises(ValueError, match="Compose expected at least one transform; got none"):
        Compose([])
