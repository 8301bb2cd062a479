"""Conditioners."""

from typing import cast

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d

from flows import MLP, ConvNet, DepthwiseNet, GlowNet, ResNet


@pytest.mark.parametrize("kind", [ConvNet, DepthwiseNet])
def test_networks_match_their_convolutions(kind: type[ConvNet | DepthwiseNet]) -> None:
    torch.manual_seed(0)
    network = kind((2, 5, 3), 3).double()
    torch.nn.init.normal_(network.last.weight)
    x = torch.randn(2, 2, 4, 3, dtype=torch.float64)
    first, last = network.first, network.last
    hidden = conv2d(x, first.weight, first.bias, padding=first.kernel_size[0] // 2).clamp_min(0)
    if isinstance(network, DepthwiseNet):  # each hidden channel has its own kernel
        kernels, bias = network.middle.weight, cast(torch.Tensor, network.middle.bias)
        each = [conv2d(hidden[:, [i]], kernels[[i]], padding=1) for i in range(5)]
        hidden = (torch.cat(each, 1) + bias[:, None, None]).clamp_min(0)
    expected = conv2d(hidden, last.weight, last.bias, padding=last.kernel_size[0] // 2)
    torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize("network", [ConvNet, DepthwiseNet])
@pytest.mark.parametrize("kernel_size", [2, 4, 0])
def test_even_kernel_size_is_rejected(network: type[ConvNet | DepthwiseNet], kernel_size: int) -> None:
    with pytest.raises(
        ValueError, match=f"{network.__name__} expected an odd kernel size; got {kernel_size}"
    ):
        network((1, 1, 1), kernel_size)


MAPS = ["ConvNet", "GlowNet", "ResNet", "DepthwiseNet"]


def networks(context: int) -> list[tuple[nn.Module, torch.Tensor]]:
    return [
        (ConvNet((2, 5, 6), 3, context=context), torch.randn(3, 2, 4, 4)),
        (GlowNet((2, 5, 6), context=context), torch.randn(3, 2, 4, 4)),
        (ResNet((2, 5, 6), 2, context=context), torch.randn(3, 2, 4, 4)),
        (DepthwiseNet((2, 5, 6), 3, context=context), torch.randn(3, 2, 4, 4)),
        (MLP(2, (5, 7), 6, context=context), torch.randn(3, 2)),
    ]


@pytest.mark.parametrize("kind", range(5), ids=[*MAPS, "MLP"])
def test_networks_start_at_zero_and_can_learn(kind: int) -> None:
    network, x = networks(0)[kind]
    out = network(x)
    assert out.shape == (3, 6, *x.shape[2:])
    assert not out.any()
    out.sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in network.parameters())


@pytest.mark.parametrize("kind", range(5), ids=[*MAPS, "MLP"])
def test_context_acts_row_by_row(kind: int) -> None:
    network, x = networks(3)[kind]
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    context = torch.randn(3, 3)
    changed = context.clone()
    changed[1] += 1
    differs = (network(x, context) != network(x, changed)).flatten(1).any(1)
    assert differs.tolist() == [False, True, False]
    if x.ndim == 4:
        maps = context[:, :, None, None].expand(-1, -1, 4, 4)
        torch.testing.assert_close(network(x, context), network(x, maps))
