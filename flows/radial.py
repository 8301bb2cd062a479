"""Radial flow: a contraction or expansion around one point."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from flows.transform import Transform, require_positive, require_vectors


class Radial(Transform):
    """Radial flow over vectors (Rezende and Mohamed 2015).

        f(x) = x + beta (x - x0) / (alpha + r),   r = |x - x0|,   alpha > 0,   beta > -alpha
        log |det df/dx| = (D - 1) log(1 + beta / (alpha + r)) + log(1 + alpha beta / (alpha + r)^2)

    arXiv 1505.05770, eq. 14 and appendix A.2. The paper has no inverse, but it has a closed form. The radius
    r' = |z - x0| = r + beta r / (alpha + r) is a quadratic equation for r. With s = alpha + beta, q = r' - s
    and d = sqrt(q^2 + 4 alpha r'):

        r = (q + d) / 2                  computed as 2 alpha r' / (d - q) if q < 0
        x = x0 + (z - x0) (alpha + r) / (r + s)

    s is computed as the softplus it is: for beta near -alpha the sum would lose its digits.

    >>> _ = torch.manual_seed(0)
    >>> flow = Radial(3).double()
    >>> x = torch.randn(4, 3, dtype=torch.float64)
    >>> z, log_det = flow.forward(x)
    >>> back, log_det_back = flow.inverse(z)
    >>> torch.allclose(back, x, atol=1e-14), torch.allclose(log_det, -log_det_back)
    (True, True)

    Args:
        features: D.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        require_positive(features, "Radial")
        self.center = nn.Parameter(torch.randn(features) / math.sqrt(features))
        self.raw_alpha = nn.Parameter(torch.zeros(()))
        self.raw_sum = nn.Parameter(torch.zeros(()))  # equal to raw_alpha: beta = 0, the identity

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_vectors(x, len(self.center), "Radial")
        alpha, total = self._alpha_and_sum()
        offset = x - self.center
        r = _norm(offset)
        z = self.center + offset * ((total + r) / (alpha + r))[:, None]
        return z, _log_det(r, alpha, total, len(self.center))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_vectors(z, len(self.center), "Radial")
        alpha, total = self._alpha_and_sum()
        offset = z - self.center
        image = _norm(offset)
        q = image - total
        # Scaled so that no square overflows or underflows.
        unit = q.detach().abs().clamp_min(1)
        root = _root((q / unit).square() + 4 * (alpha / unit) * (image / unit)) * unit
        # Use the form that adds terms of the same sign; keep the divisor of the unused form away from 0.
        far = q > 0
        r = torch.where(far, (q + root) / 2, 2 * alpha * image / torch.where(far, 1.0, root - q))
        x = self.center + offset * ((alpha + r) / (total + r))[:, None]
        return x, -_log_det(r, alpha, total, len(self.center))

    def _alpha_and_sum(self) -> tuple[Tensor, Tensor]:
        """Compute alpha and alpha + beta, both large enough for a finite ratio and slope."""
        least = torch.finfo(self.raw_alpha.dtype).tiny ** 0.25
        return softplus(self.raw_alpha).clamp_min(least), softplus(self.raw_sum).clamp_min(least)


def _root(square: Tensor) -> Tensor:
    """Compute the square root, with gradient 0 instead of infinity at 0."""
    nonzero = square > 0
    return torch.where(nonzero, torch.where(nonzero, square, 1.0).sqrt(), 0.0)


def _norm(offset: Tensor) -> Tensor:
    """Compute the norm of each row, (N,), scaled by its largest element against overflow."""
    largest = offset.detach().abs().amax(1)
    unit = torch.where(largest > 0, largest, 1.0)
    return _root((offset / unit[:, None]).square().sum(1)) * unit


def _log_det(r: Tensor, alpha: Tensor, total: Tensor, features: int) -> Tensor:
    """Compute the log-determinant with beta = total - alpha, by sums of positive terms only."""
    far, near = r / (alpha + r), alpha / (alpha + r)
    around = (far + total / (alpha + r)).log()
    along = (far.square() + 2 * far * near + near * (total / (alpha + r))).log()
    return (features - 1) * around + along
