"""Invertible 1x1 convolution."""

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d

from flows import InvertibleConv1x1


def weight(layer: InvertibleConv1x1) -> torch.Tensor:
    return layer.forward(torch.eye(len(layer.sign), dtype=layer.lower.dtype))[0].T.detach()


def test_conv1x1_matches_conv2d() -> None:
    torch.manual_seed(1)
    layer = InvertibleConv1x1(4).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    w = weight(layer)
    torch.testing.assert_close(layer.forward(x)[0], conv2d(x, w[:, :, None, None]))
    assert layer.forward(x)[1].tolist() == pytest.approx(2 * [15 * torch.linalg.slogdet(w)[1].item()])
    np.testing.assert_allclose(layer.inverse(x)[0][0, :, 1, 2].detach(), np.linalg.solve(w, x[0, :, 1, 2]))
