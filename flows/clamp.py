"""Clamps of the log-scale of an affine law."""

import math

import torch
from torch import Tensor, nn

_FLOOR = 1e-3  # of the scales exp(s) that are no clamps


class SoftClamp(nn.Module):
    """Soft clamp s = c tanh(a / c), with slope 1 at a = 0.

    Without a bound, one strange input can overflow exp(s). Some libraries call c tanh(0.1 a) a soft clamp
    too; a bundle therefore records the formula.

    >>> SoftClamp(2.0)(torch.tensor([0.0, 100.0, -100.0])).tolist()
    [0.0, 2.0, -2.0]

    Args:
        bound: c > 0; exp(s) lies in [exp(-c), exp(c)].

    Raises:
        ValueError: the bound is not above 0 and finite.
    """

    def __init__(self, bound: float) -> None:
        super().__init__()
        if not 0 < bound < math.inf:
            raise ValueError(f"SoftClamp expected a finite bound above 0; got {bound}")
        self.bound = bound

    def forward(self, a: Tensor) -> Tensor:
        """Clamp elementwise, any shape."""
        return self.bound * torch.tanh(a / self.bound)


class LearnedClamp(nn.Module):
    """Learned clamp s = c tanh(a), one c per channel (RealNVP).

    Dinh et al. 2017, arXiv 1605.08803, section 4.1. c starts at 1.

    Args:
        channels: C of the transformed part.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, a: Tensor) -> Tensor:
        """Clamp (N, C) or (N, C, H, W)."""
        return self.scale.view((1, -1) + (1,) * (a.ndim - 2)) * torch.tanh(a)


class SigmoidScale(nn.Module):
    """Sigmoid scale of Glow's code with a floor, exp(s) = f + (1 - f) sigmoid(a + 2), f = 0.001.

    Kingma and Dhariwal 2018, arXiv 1807.03039. The code has f = 0; then one strange input can make exp(s) so
    small that the inverse overflows.
    """

    def forward(self, a: Tensor) -> Tensor:
        """Return s elementwise, any shape."""
        return (_FLOOR + (1 - _FLOOR) * torch.sigmoid(a + 2)).log()


class SoftplusScale(nn.Module):
    """Softplus scale, exp(s) = f + softplus(a + log(e - 1)), f = 0.001.

    It grows linearly in a and is 1 + f at a = 0. Durkan et al.'s library nflows uses such a scale; flows on
    tables fit better with it than with an exponential.
    """

    def forward(self, a: Tensor) -> Tensor:
        """Return s elementwise, any shape."""
        return (_FLOOR + nn.functional.softplus(a + math.log(math.e - 1))).log()
