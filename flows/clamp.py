"""Clamps of a coupling's log-scale."""

import math

import torch
from torch import Tensor, nn


class SoftClamp(nn.Module):
    """s = c tanh(a / c): the identity near 0, and never beyond [-c, c].

    Without a bound, exp(s) can overflow for one strange input. The slope at 0 is 1 whatever c is. (Another
    clamp in use, c tanh(0.1 a), goes by the same name elsewhere; a bundle records which formula it was
    trained with.)

    Args:
        bound: c > 0; exp(s) then lies in [exp(-c), exp(c)].

    Raises:
        ValueError: the bound is not above 0 and finite.
    """

    def __init__(self, bound: float) -> None:
        super().__init__()
        if not 0 < bound < math.inf:
            raise ValueError(f"SoftClamp expected a finite bound above 0; got {bound}")
        self.bound = bound

    def forward(self, a: Tensor) -> Tensor:
        """Clamp element by element; any shape."""
        return self.bound * torch.tanh(a / self.bound)


class LearnedClamp(nn.Module):
    """s = c tanh(a) with one learned c per channel (Dinh et al. 2017, arXiv 1605.08803, section 4.1).

    Args:
        channels: C of what is transformed. c starts at 1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, a: Tensor) -> Tensor:
        """Clamp (N, C) or (N, C, H, W)."""
        return self.scale.view((1, -1) + (1,) * (a.ndim - 2)) * torch.tanh(a)


class SigmoidScale(nn.Module):
    """exp(s) = f + (1 - f) sigmoid(a + 2): the scale of Glow's code, kept from 0 (arXiv 1807.03039).

    The code has f = 0; then one strange input can make exp(s) so small that the inverse, which divides by
    it, overflows.

    Args:
        floor: f, in (0, 1); exp(s) then lies in (f, 1).

    Raises:
        ValueError: the floor does not lie there.
    """

    def __init__(self, floor: float = 1e-3) -> None:
        super().__init__()
        if not 0 < floor < 1:
            raise ValueError(f"SigmoidScale expected a floor between 0 and 1; got {floor}")
        self.floor = floor

    def forward(self, a: Tensor) -> Tensor:
        """Element by element; any shape."""
        return (self.floor + (1 - self.floor) * torch.sigmoid(a + 2)).log()


class SoftplusScale(nn.Module):
    """exp(s) = f + softplus(a + log(e - 1)): a scale that grows as a does, where exp would grow faster.

    At a = 0 it is 1 + f. After the scales of Durkan et al.'s nflows, whose flows on tables learn better by it
    than by an exponential.

    Args:
        floor: f > 0; exp(s) is above it.

    Raises:
        ValueError: the floor is not above 0 and finite.
    """

    def __init__(self, floor: float = 1e-3) -> None:
        super().__init__()
        if not 0 < floor < math.inf:
            raise ValueError(f"SoftplusScale expected a finite floor above 0; got {floor}")
        self.floor = floor

    def forward(self, a: Tensor) -> Tensor:
        """Element by element; any shape."""
        return (self.floor + nn.functional.softplus(a + math.log(math.e - 1))).log()
