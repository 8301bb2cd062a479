"""The affine coupling law."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flows import AffineCoupling, ConvNet, Halves, SoftClamp


class Square(nn.Module):
    """A conditioner that is nobody's inverse: a = x^2 - 3 and t = |x|, for equal halves."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.square() - 3, x.abs()], 1)


@pytest.mark.parametrize("swapped", [False, True])
def test_it_is_the_formula(swapped: bool) -> None:
    x = np.random.default_rng(0).normal(size=(3, 4, 2, 5))
    a, b = (x[:, 2:], x[:, :2]) if swapped else (x[:, :2], x[:, 2:])
    s = 1.5 * np.tanh((a**2 - 3) / 1.5)
    changed = b * np.exp(s) + np.abs(a)
    expected = np.concatenate([changed, a] if swapped else [a, changed], 1)

    coupling = AffineCoupling(Halves(4, swapped=swapped), Square(), SoftClamp(1.5))
    z, log_det = coupling.forward(torch.tensor(x))
    np.testing.assert_allclose(z.numpy(), expected, rtol=1e-14)
    np.testing.assert_allclose(log_det.numpy(), s.sum((1, 2, 3)), rtol=1e-13)


def test_the_conditioning_half_passes_to_the_last_bit() -> None:
    coupling = AffineCoupling(Halves(4), Square(), SoftClamp(2.0))
    x = torch.randn(2, 4, 3, 3)
    assert torch.equal(coupling.forward(x)[0][:, :2], x[:, :2])
    assert torch.equal(coupling.inverse(x)[0][:, :2], x[:, :2])


def test_it_starts_as_the_identity_with_a_conditioner_that_starts_at_zero() -> None:
    coupling = AffineCoupling(Halves(5), ConvNet((3, 4, 4), 3), SoftClamp(2.0))
    x = torch.randn(2, 5, 3, 3)
    z, log_det = coupling.forward(x)
    assert torch.equal(z, x)
    assert log_det.tolist() == [0, 0]


def test_no_input_however_strange_overflows() -> None:
    coupling = AffineCoupling(Halves(2), Square(), SoftClamp(2.0))
    z, log_det = coupling.forward(torch.tensor([[1e18, 1.0], [0.0, 1e18]]))
    assert z.isfinite().all()
    assert log_det.tolist() == pytest.approx([2.0, 2 * np.tanh(-1.5)])


@pytest.mark.parametrize("width", [1, 2, 5, 8])
def test_a_conditioner_of_another_width_is_refused(width: int) -> None:
    """Two channels would broadcast over three that are transformed, and the log_det would be a third."""
    coupling = AffineCoupling(Halves(6), nn.Conv2d(3, width, 1), SoftClamp(2.0))
    for apply in (coupling.forward, coupling.inverse):
        with pytest.raises(ValueError, match=rf"expected 6 channels of its conditioner.*got {width}"):
            apply(torch.zeros(1, 6, 2, 2))
