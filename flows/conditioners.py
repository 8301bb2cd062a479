"""Conditioners: networks that compute a coupling's parameters from its unchanged part.

By default they start with output 0, so a coupling starts as the identity (near it with Glow's scale). A
network built with a context takes it as (N, K), or as maps (N, K, H, W), and casts it to the dtype of its
input.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ConvNet(nn.Module):
    """Two k x k convolutions with a ReLU between them; keeps height and width.

    >>> ConvNet((2, 8, 4), 3)(torch.zeros(1, 2, 5, 5)).shape
    torch.Size([1, 4, 5, 5])

    Args:
        channels: (in, hidden, out).
        kernel_size: k, odd.
        context: K, or 0.
    """

    def __init__(self, channels: tuple[int, int, int], kernel_size: int, *, context: int = 0) -> None:
        super().__init__()
        _require_odd("ConvNet", kernel_size)
        in_, hidden, out = channels
        self.context = context
        self.first = nn.Conv2d(in_ + context, hidden, kernel_size, padding=kernel_size // 2)
        self.last = nn.Conv2d(hidden, out, kernel_size, padding=kernel_size // 2)
        start_near_zero(self.last)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map (N, in, H, W), and a context, to (N, out, H, W)."""
        hidden = nn.functional.relu(self.first(_with_context(x, context, self.context)), inplace=True)
        out: Tensor = self.last(hidden)
        return out


class _ThreeConvolutions(nn.Module):
    """Three convolutions with ReLU between them; the last one starts at zero."""

    def __init__(self, first: nn.Conv2d, middle: nn.Conv2d, last: nn.Conv2d, context: int) -> None:
        super().__init__()
        self.context = context
        self.first, self.middle, self.last = first, middle, last
        start_near_zero(self.last)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map (N, in, H, W), and a context, to (N, out, H, W)."""
        hidden = nn.functional.relu(self.first(_with_context(x, context, self.context)), inplace=True)
        hidden = nn.functional.relu(self.middle(hidden), inplace=True)
        out: Tensor = self.last(hidden)
        return out


class DepthwiseNet(_ThreeConvolutions):
    """1x1, depthwise k x k and 1x1 convolutions with ReLU between them; keeps height and width.

    The block of MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381, section 3.3). Each hidden channel sees
    the neighbourhood of a position by itself, so a large k costs little.

    Args:
        channels: (in, hidden, out).
        kernel_size: k, odd.
        context: K, or 0.
    """

    def __init__(self, channels: tuple[int, int, int], kernel_size: int, *, context: int = 0) -> None:
        _require_odd("DepthwiseNet", kernel_size)
        in_, hidden, out = channels
        super().__init__(
            nn.Conv2d(in_ + context, hidden, 1),
            nn.Conv2d(hidden, hidden, kernel_size, padding=kernel_size // 2, groups=hidden),
            nn.Conv2d(hidden, out, 1),
            context,
        )


class MLP(nn.Module):
    """Linear layers with ReLU between them, over vectors.

    >>> MLP(2, (16,), 4, context=3)(torch.zeros(5, 2), torch.zeros(5, 3)).shape
    torch.Size([5, 4])

    Args:
        features: number of inputs.
        hidden: widths of the hidden layers.
        out: number of outputs.
        context: K, or 0.
        start: factor of the last layer's random weights.
    """

    def __init__(
        self, features: int, hidden: Sequence[int], out: int, *, context: int = 0, start: float = 0.0
    ) -> None:
        super().__init__()
        self.context = context
        sizes = [features + context, *hidden]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU()]
        last = nn.Linear(sizes[-1], out)
        start_near_zero(last, start)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map (N, in), and a context (N, K), to (N, out)."""
        out: Tensor = self.layers(_with_context(x, context, self.context))
        return out


class GlowNet(_ThreeConvolutions):
    """3x3, 1x1 and 3x3 convolutions with ReLU between them (Glow, arXiv 1807.03039, section 5).

    Args:
        channels: (in, hidden, out).
        context: K, or 0.
    """

    def __init__(self, channels: tuple[int, int, int], *, context: int = 0) -> None:
        in_, hidden, out = channels
        super().__init__(
            nn.Conv2d(in_ + context, hidden, 3, padding=1),
            nn.Conv2d(hidden, hidden, 1),
            nn.Conv2d(hidden, out, 3, padding=1),
            context,
        )


class ResNet(nn.Module):
    """Residual network with pre-activation, as in RealNVP.

    Dinh et al. 2017, arXiv 1605.08803, section 4, without the paper's batch normalisation: with it a density
    would depend on the rest of its batch.

    Args:
        channels: (in, hidden, out).
        blocks: residual blocks of two 3x3 convolutions each.
        context: K, or 0.
    """

    def __init__(self, channels: tuple[int, int, int], blocks: int = 2, *, context: int = 0) -> None:
        super().__init__()
        in_, hidden, out = channels
        self.context = context
        self.first = nn.Conv2d(in_ + context, hidden, 3, padding=1)
        self.blocks = nn.ModuleList(_Residual(hidden) for _ in range(blocks))
        self.last = nn.Conv2d(hidden, out, 1)
        start_near_zero(self.last)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map (N, in, H, W), and a context, to (N, out, H, W)."""
        hidden = self.first(_with_context(x, context, self.context))
        for block in self.blocks:
            hidden = block(hidden)
        out: Tensor = self.last(nn.functional.relu(hidden))
        return out


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        start_near_zero(self.second)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(nn.functional.relu(x))
        out: Tensor = x + self.second(nn.functional.relu(hidden))
        return out


def start_near_zero(layer: nn.Linear | nn.Conv2d, start: float = 0.0) -> None:
    """Scale the parameters of a fresh layer, so that its output starts small, or at 0."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(start)


def _require_odd(network: str, kernel_size: int) -> None:
    if kernel_size % 2 == 0:
        raise ValueError(f"{network} expected an odd kernel size; got {kernel_size}")


def _with_context(x: Tensor, context: Tensor | None, features: int) -> Tensor:
    """Append the context to x as further channels; ignore it if the network has none."""
    if features == 0:
        return x
    row = (x.shape[0], features)
    if context is None or tuple(context.shape) not in (row, (*row, *x.shape[2:])):
        got = "none" if context is None else str(tuple(context.shape))
        maps = f", or maps of the input's size, {(*row, *x.shape[2:])}" if x.ndim > 2 else ""
        # The size is that of this network's input, which the caller of a squeezing flow never sees.
        squeezed = f"; recipes that squeeze images take {row} alone" if maps and "," in got else ""
        raise ValueError(f"expected a context of shape {row}{maps}; got {got}{squeezed}")
    if context.ndim < x.ndim:
        context = context[:, :, None, None].expand(-1, -1, *x.shape[2:])
    return torch.cat([x, context.to(x.dtype)], 1)
