"""Multi-scale architecture."""

import pytest
import torch

from flows import ChannelAffine, FactorOut


def test_factor_out_transforms_the_first_half_only() -> None:
    inner = ChannelAffine(2)
    torch.nn.init.constant_(inner.log_scale, 0.5)
    x = torch.randn(3, 3, 2, 2)
    z, log_det = FactorOut(3, inner).forward(x)
    torch.testing.assert_close(z[:, :2], x[:, :2] * torch.tensor(0.5).exp())
    assert torch.equal(z[:, 2:], x[:, 2:])
    assert log_det.tolist() == pytest.approx(3 * [4 * 2 * 0.5])
