"""Planar flow: a push along one direction that depends on the distance from a plane."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from flows.transform import Transform, require_positive, require_vectors, without_autocast

# softplus(x + log(e - 1)) is 1 at x = 0.
_UNIT = math.log(math.e - 1)
_NEWTON_STEPS = 24


class Planar(Transform):
    """Planar flow over vectors (Rezende and Mohamed 2015).

        f(x) = x + u' tanh(a),   a = w.x + b
        log |det df/dx| = log |1 + c sech^2 a|,   c = w.u'
        u' = u + (m(w.u) - w.u) w / |w|^2         gives c = m(w.u) > -1, so f is invertible

    arXiv 1505.05770, eq. 10-12 and appendix A.1. The paper has m(x) = -1 + softplus(x). There m(0) is not 0,
    so a small w gives a huge u'. Here m(x) = -1 + softplus(x + log(e - 1)), with m(0) = 0.

    The paper has no inverse. With A = w.z + b the scalar equation t + c tanh t = A has one solution, t = a;
    then x = z - u' tanh t. Newton's method finds it in a fixed number of steps, from the side where it cannot
    overshoot. `inverse` can be differentiated twice.

    1 + c is computed as the softplus it is. Near c = -1, 1 + c sech^2 a as written would lose all its digits.

    >>> _ = torch.manual_seed(0)
    >>> flow = Planar(2).double()
    >>> x = torch.randn(4, 2, dtype=torch.float64)
    >>> z, log_det = flow.forward(x)
    >>> back, log_det_back = flow.inverse(z)
    >>> torch.allclose(back, x, atol=1e-14), torch.allclose(log_det, -log_det_back)
    (True, True)

    Args:
        features: D.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        require_positive(features, "Planar")
        self.u = nn.Parameter(torch.randn(features) / math.sqrt(features))
        self.w = nn.Parameter(torch.randn(features) / math.sqrt(features))
        self.b = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_vectors(x, len(self.w), "Planar")
        push, _, margin = self._constrained_u()
        wide = x.to(push.dtype)
        a = self._activation(wide)
        z = wide + push * torch.tanh(a)[:, None]
        return z.to(x.dtype), _log_slope(a, margin).to(x.dtype)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_vectors(z, len(self.w), "Planar")
        push, c, margin = self._constrained_u()
        wide = z.to(push.dtype)
        a = _solve(self._activation(wide), c, margin)
        x = wide - push * torch.tanh(a)[:, None]
        return x.to(z.dtype), -_log_slope(a, margin).to(z.dtype)

    def _activation(self, x: Tensor) -> Tensor:
        """Compute w.x + b, (N,), without autocast: the inverse solves for this value."""
        with without_autocast(x.device.type):
            return x @ self.w.to(x.dtype) + self.b.to(x.dtype)

    def _constrained_u(self) -> tuple[Tensor, Tensor, Tensor]:
        """Compute u', (D,), c = w.u' and the margin 1 + c > 0, both ().

        In single precision at least: in half, c may round below -1, and f would not be invertible.
        """
        dtype = torch.promote_types(self.w.dtype, torch.float32)
        w, u = self.w.to(dtype), self.u.to(dtype)
        with without_autocast(self.w.device.type):
            along = w @ u
        margin = softplus(along + _UNIT).clamp_min(torch.finfo(along.dtype).tiny)
        # margin - 1 without cancellation: softplus(x + log(e - 1)) = 1 + log1p((1 - 1/e) (exp(x) - 1)).
        small = torch.log1p((1 - 1 / math.e) * torch.expm1(along.clamp_max(1)))
        c = torch.where(along < 1, small, margin - 1)
        # For w = 0 the quotient only has to be finite: it multiplies w.
        square = w.square().sum().clamp_min(torch.finfo(dtype).tiny)
        return u + (c - along) / square * w, c, margin


def _sech2(a: Tensor) -> Tensor:
    """Compute 1 / cosh^2 a without the cancellation of 1 - tanh^2 a for large a."""
    e = (-2 * a.abs()).exp()
    return 4 * e / (1 + e).square()


def _log_slope(a: Tensor, margin: Tensor) -> Tensor:
    """Compute log(1 + c sech^2 a) as log(margin sech^2 a + tanh^2 a), shaped like a."""
    return (margin * _sech2(a) + torch.tanh(a).square()).log()


def _solve(target: Tensor, c: Tensor, margin: Tensor) -> Tensor:
    """Solve t + c tanh t = target for t elementwise, to machine precision.

    The equation is odd, so it is solved for |target|. For t > 0 its left side h is concave if c > 0 and
    convex if c < 0. Its tangents lie on one side, so Newton's steps from the lower or upper side do not
    overshoot.

    The start is a bound of the solution from that side. For c > 0: h <= (1 + c) t and h <= t + c. For c < 0:
    h >= (1 + c) t, h >= t + c, and h >= t^3 / (3 + 1.2 t^2). The last follows from the continued fraction
    tanh t < t / (1 + t^2 / (3 + t^2 / 5)).
    """
    size, slope, offset = target.detach().abs(), margin.detach(), c.detach()
    tiny = torch.finfo(size.dtype).tiny
    linear = size / slope.clamp_min(tiny)
    below = torch.maximum(linear, size - offset)
    cubic = 1.2 * size + (3 * size).pow(1 / 3)
    above = torch.minimum(torch.minimum(linear, size - offset), cubic)
    concave = offset > 0
    t = torch.where(concave, below, above)
    for _ in range(_NEWTON_STEPS):
        step = (t + offset * torch.tanh(t) - size) / _slope(t, slope).clamp_min(tiny)
        t = torch.where(concave, (t - step).clamp_max(size), torch.maximum(t - step, size))
    t = t * target.detach().sign()
    # Two differentiable steps give the first and second derivative of the implicit function.
    for _ in range(2):
        t = t - (t + c * torch.tanh(t) - target) / _slope(t, margin).clamp_min(tiny)
    return t


def _slope(t: Tensor, margin: Tensor) -> Tensor:
    return margin * _sech2(t) + torch.tanh(t).square()
