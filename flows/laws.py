"""Elementwise invertible maps whose parameters another network computes: the laws of couplings."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from flows.clamp import SoftClamp
from flows.spline import rational_quadratic, rational_quadratic_inverse


class Law(nn.Module, ABC):
    """A map of single numbers, increasing for whatever parameters it gets.

    Attributes:
        per_element: how many parameters each element takes.
    """

    per_element: int

    @abstractmethod
    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Map x, (N, ...), with parameters (N, per_element, ...). Returns z and log dz/dx, shaped like x."""

    @abstractmethod
    def inverse(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Undo `forward`. Returns x and log dx/dz, shaped like z."""


class Additive(Law):
    """z = x + t (Dinh et al. 2015, NICE, arXiv 1410.8516, eq. 9-10); log dz/dx = 0."""

    per_element = 1

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return x + parameters[:, 0], torch.zeros_like(x)

    def inverse(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return z - parameters[:, 0], torch.zeros_like(z)


class Affine(Law):
    """z = x exp(s) + t, s = clamp(a) (Dinh et al. 2017, RealNVP, arXiv 1605.08803, eq. 7-8).

    log dz/dx = s. The first parameter is the raw log-scale a, the second the shift t.

    Args:
        clamp: maps a to the log-scale s, elementwise.
    """

    per_element = 2

    def __init__(self, clamp: nn.Module | None = None) -> None:
        super().__init__()
        self.clamp = SoftClamp(2.0) if clamp is None else clamp

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        log_scale: Tensor = self.clamp(parameters[:, 0])
        return torch.addcmul(parameters[:, 1], x, log_scale.exp()), log_scale

    def inverse(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        log_scale: Tensor = self.clamp(parameters[:, 0])
        return (z - parameters[:, 1]) * (-log_scale).exp(), -log_scale


class RationalQuadraticSpline(Law):
    """A monotone rational-quadratic spline on [-B, B], the identity outside.

    Durkan et al. 2019, Neural Spline Flows, arXiv 1906.04032, section 3.1. Of the 3K - 1 parameters K are
    the bins' widths and K their heights (both through a softmax), and K - 1 the derivatives at the inner
    knots (through a softplus). All parameters 0 give the identity.

    Args:
        bins: K >= 2.
        bound: B > 0.

    Raises:
        ValueError: there are fewer than two bins, or the bound is not above 0 and finite.
    """

    def __init__(self, bins: int = 8, bound: float = 4.0) -> None:
        super().__init__()
        if bins < 2 or not 0 < bound < math.inf:
            raise ValueError(
                f"RationalQuadraticSpline expected at least 2 bins and a finite bound above 0; got {bins} "
                f"and {bound}"
            )
        self.bins = bins
        self.bound = bound
        self.per_element = 3 * bins - 1

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return self._in_enough_digits(rational_quadratic, x, parameters)

    def inverse(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return self._in_enough_digits(rational_quadratic_inverse, z, parameters)

    def _in_enough_digits(
        self, function: Callable[..., tuple[Tensor, Tensor]], at: Tensor, parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        """In single precision at least: half cannot tell a narrow bin's knots apart."""
        dtype = torch.promote_types(at.dtype, torch.float32)
        result, log_derivatives = function(at.to(dtype), *self._knots(parameters.to(dtype)))
        return result.to(at.dtype), log_derivatives.to(at.dtype)

    def _knots(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Knots' positions, values and derivatives, each (..., K + 1)."""
        raw = parameters.movedim(1, -1)
        widths, heights, slopes = raw.tensor_split([self.bins, 2 * self.bins], -1)
        inner = nn.functional.softplus(slopes + math.log(math.e - 1)) * (1 - _LEAST) + _LEAST
        derivatives = nn.functional.pad(inner, (1, 1), value=1.0)
        return self._positions(widths), self._positions(heights), derivatives

    def _positions(self, raw: Tensor) -> Tensor:
        """Increasing from -B to B, at least a thousandth of an equal bin apart."""
        shares = raw.softmax(-1) * (1 - _LEAST) + _LEAST / self.bins
        inner = 2 * self.bound * shares.cumsum(-1)[..., :-1] - self.bound
        left = nn.functional.pad(inner, (1, 0), value=-self.bound)
        return nn.functional.pad(left, (0, 1), value=self.bound)


# Of a bin's size and of a knot's derivative: neither reaches 0, so the spline stays increasing.
_LEAST = 1e-3
