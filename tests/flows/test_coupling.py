"""Couplings of laws and partitions."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flows import Additive, Affine, Checkerboard, Coupling, Halves, SoftClamp


class Square(nn.Module):
    """Conditioner that is not invertible: a = x^2 - 3 and t = |x|, for equal halves."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.square() - 3, x.abs()], 1)


@pytest.mark.parametrize("swapped", [False, True])
def test_coupling_matches_formula(swapped: bool) -> None:
    x = np.random.default_rng(0).normal(size=(3, 4, 2, 5))
    a, b = (x[:, 2:], x[:, :2]) if swapped else (x[:, :2], x[:, 2:])
    s = 1.5 * np.tanh((a**2 - 3) / 1.5)
    changed = b * np.exp(s) + np.abs(a)
    expected = np.concatenate([changed, a] if swapped else [a, changed], 1)

    coupling = Coupling(Halves(4, swapped=swapped), Square(), Affine(SoftClamp(1.5)))
    z, log_det = coupling.forward(torch.tensor(x))
    np.testing.assert_allclose(z.numpy(), expected, rtol=1e-14)
    np.testing.assert_allclose(log_det.numpy(), s.sum((1, 2, 3)), rtol=1e-13)


def test_additive_coupling_adds_and_keeps_volume() -> None:
    coupling = Coupling(Halves(4), nn.Linear(2, 2), Additive())
    x = torch.randn(3, 4)
    z, log_det = coupling.forward(x)
    torch.testing.assert_close(z[:, 2:] - x[:, 2:], coupling.conditioner(x[:, :2]))
    assert log_det.tolist() == [0, 0, 0]


@pytest.mark.parametrize("swapped", [False, True])
def test_checkerboard_transforms_one_colour_only(swapped: bool) -> None:
    """Changing a transformed pixel must change nothing else."""
    torch.manual_seed(0)
    network = nn.Conv2d(1, 2, 3, padding=1)
    coupling = Coupling(Checkerboard(1, swapped=swapped), network, Affine())
    x = torch.randn(1, 1, 4, 4)
    z, _ = coupling.forward(x)
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    passes = (rows + columns) % 2 == int(swapped)
    assert torch.equal(z[0, 0][passes], x[0, 0][passes])
    assert (z[0, 0][~passes] != x[0, 0][~passes]).all()
    row, column = (~passes).nonzero()[3].tolist()
    other = x.clone()
    other[0, 0, row, column] += 1
    changed = (coupling.forward(other)[0] != z)[0, 0].nonzero().tolist()
    assert changed == [[row, column]]
