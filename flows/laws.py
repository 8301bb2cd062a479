"""Coupling laws: elementwise increasing maps with parameters from a conditioner."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from flows.clamp import SoftClamp
from flows.spline import rational_quadratic, rational_quadratic_inverse


class Law(nn.Module, ABC):
    """Elementwise map that is increasing for all parameters.

    Attributes:
        per_element: number of parameters per element.
    """

    per_element: int

    @abstractmethod
    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Map x, (N, ...), by parameters (N, per_element, ...); return z and log dz/dx."""

    @abstractmethod
    def inverse(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Undo `forward`; return x and log dx/dz."""


class Additive(Law):
    """Additive law z = x + t, with log dz/dx = 0.

    Dinh et al. 2015, NICE, arXiv 1410.8516, eq. 9-10.

    >>> z, log_derivative = Additive().forward(torch.ones(1, 2), torch.tensor([[[3.0, -1.0]]]))
    >>> z.tolist(), log_derivative.tolist()
    ([[4.0, 0.0]], [[0.0, 0.0]])
    """

    per_element = 1

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return x + parameters[:, 0], torch.zeros_like(x)

    def inverse(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return z - parameters[:, 0], torch.zeros_like(z)


class Affine(Law):
    """Affine law z = x exp(s) + t with s = clamp(a), and log dz/dx = s.

    Dinh et al. 2017, RealNVP, arXiv 1605.08803, eq. 7-8. The parameters are the raw log-scale a and the shift
    t.

    >>> parameters = torch.tensor([[[0.0, 0.0], [3.0, -1.0]]])  # (N, 2, D): a = 0, t = 3 and -1
    >>> Affine().forward(torch.ones(1, 2), parameters)[0].tolist()
    [[4.0, 0.0]]

    Args:
        clamp: maps a to s elementwise, by default `SoftClamp(2.0)`.
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
    """Monotone rational-quadratic spline on [-B, B], the identity outside.

    Durkan et al. 2019, Neural Spline Flows, arXiv 1906.04032, section 3.1. The 3K - 1 parameters are K widths
    and K heights of the bins (through a softmax) and K - 1 derivatives at the inner knots (through a
    softplus). With all parameters 0 the spline is the identity.

    >>> spline = RationalQuadraticSpline(bins=4, bound=3.0)
    >>> z, _ = spline.forward(torch.tensor([[-5.0, 0.5]]), torch.randn(1, spline.per_element, 2))
    >>> z[0, 0].item(), bool(-3 < z[0, 1] < 3)
    (-5.0, True)

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
        return self._evaluate(rational_quadratic, x, parameters)

    def inverse(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return self._evaluate(rational_quadratic_inverse, z, parameters)

    def _evaluate(
        self, function: Callable[..., tuple[Tensor, Tensor]], at: Tensor, parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Evaluate in single precision at least: half cannot separate the knots of a narrow bin."""
        dtype = torch.promote_types(at.dtype, torch.float32)
        result, log_derivatives = function(at.to(dtype), *self._knots(parameters.to(dtype)))
        return result.to(at.dtype), log_derivatives.to(at.dtype)

    def _knots(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return positions, values and derivatives of the knots, each (..., K + 1)."""
        raw = parameters.movedim(1, -1)
        widths, heights, slopes = raw.tensor_split([self.bins, 2 * self.bins], -1)
        inner = nn.functional.softplus(slopes + math.log(math.e - 1)) * (1 - _LEAST) + _LEAST
        derivatives = nn.functional.pad(inner, (1, 1), value=1.0)
        return self._positions(widths), self._positions(heights), derivatives

    def _positions(self, raw: Tensor) -> Tensor:
        """Return knots that increase from -B to B, at least 1/1000 of an equal bin apart."""
        shares = raw.softmax(-1) * (1 - _LEAST) + _LEAST / self.bins
        inner = 2 * self.bound * shares.cumsum(-1)[..., :-1] - self.bound
        left = nn.functional.pad(inner, (1, 0), value=-self.bound)
        return nn.functional.pad(left, (0, 1), value=self.bound)


# Lower bound of a bin's relative size and of a knot's derivative, so that the spline stays increasing.
_LEAST = 1e-3
