"""Soft clamps of a coupling's log-scale."""

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
    """

    def __init__(self, bound: float) -> None:
        super().__init__()
        if not 0 < bound < math.inf:
            raise ValueError(f"SoftClamp expected a finite bound above 0; got {bound}")
        self.bound = bound

    def forward(self, a: Tensor) -> Tensor:
        """Clamp element by element; any shape."""
        return self.bound * torch.tanh(a / self.bound)
