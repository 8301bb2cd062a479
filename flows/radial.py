"""The radial flow: a contraction or expansion around one point."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from flows.transform import Transform, require_positive, require_vectors


class Radial(Transform):
    """Radial flow (Rezende and Mohamed 2015, arXiv 1505.05770, eq. 14 and appendix A.2), over vectors.

        f(x) = x + beta (x - x0) / (alpha + r),   r = |x - x0|,   alpha > 0,   beta > -alpha
        log |det df/dx| = (D - 1) log(1 + beta / (alpha + r)) + log(1 + alpha beta / (alpha + r)^2)

    The paper has no inverse; it is closed. r' = |z - x0| is r + beta r / (alpha + r), a quadratic equation
    for r: with s = alpha + beta, q = r' - s and d = sqrt(q^2 + 4 alpha r'), r = (q + d) / 2, computed as
    2 alpha r' / (d - q) where q < 0; then x = x0 + (z - x0) (alpha + r) / (r + s).

    s is carried as what it is made from, a softplus: where beta is near -alpha all but the centre's own
    surroundings contract, and alpha + beta would have lost its digits.

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
        # In a unit in which no square leaves the range of its numbers.
        unit = q.detach().abs().clamp_min(1)
        root = _root((q / unit).square() + 4 * (alpha / unit) * (image / unit)) * unit
        # Each form where it adds what has the same sign; the divisor is kept from 0 where it is not used.
        far = q > 0
        r = torch.where(far, (q + root) / 2, 2 * alpha * image / torch.where(far, 1.0, root - q))
        x = self.center + offset * ((alpha + r) / (total + r))[:, None]
        return x, -_log_det(r, alpha, total, len(self.center))

    def _alpha_and_sum(self) -> tuple[Tensor, Tensor]:
        """alpha and alpha + beta, both above 0 whatever the parameters are.

        So far above that their ratio and its slope at the centre are numbers: infinity times 0 is none.
        """
        least = torch.finfo(self.raw_alpha.dtype).tiny ** 0.25
        return softplus(self.raw_alpha).clamp_min(least), softplus(self.raw_sum).clamp_min(least)


def _root(square: Tensor) -> Tensor:
    """The square root, with gradient 0 instead of infinity at 0."""
    nonzero = square > 0
    return torch.where(nonzero, torch.where(nonzero, square, 1.0).sqrt(), 0.0)


def _norm(offset: Tensor) -> Tensor:
    """|offset| of each row, (N,), in units of its largest element, whose square might not be a number."""
    largest = offset.detach().abs().amax(1)
    unit = torch.where(largest > 0, largest, 1.0)
    return _root((offset / unit[:, None]).square().sum(1)) * unit


def _log_det(r: Tensor, alpha: Tensor, total: Tensor, features: int) -> Tensor:
    """The formula of the class with beta = total - alpha, as sums of positive shares of alpha + r."""
    far, near = r / (alpha + r), alpha / (alpha + r)
    around = (far + total / (alpha + r)).log()
    along = (far.square() + 2 * far * near + near * (total / (alpha + r))).log()
    return (features - 1) * around + along
