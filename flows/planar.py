"""The planar flow: a push along one direction, as strong as the point is near a plane."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from flows.transform import Transform, require_positive, require_vectors, without_autocast

# softplus(x + log(e - 1)) is 1 at x = 0.
_UNIT = math.log(math.e - 1)
_NEWTON_STEPS = 24


class Planar(Transform):
    """Planar flow (Rezende and Mohamed 2015, arXiv 1505.05770, eq. 10-12 and appendix A.1), over vectors.

        f(x) = x + u' tanh(a),   a = w.x + b
        log |det df/dx| = log |1 + c sech^2 a|,   c = w.u'
        u' = u + (m(w.u) - w.u) w / |w|^2         so that c = m(w.u) > -1, and f is invertible

    The paper has m(x) = -1 + softplus(x), which makes u' huge where w is small, since m(0) is not 0. Here
    m(x) = -1 + softplus(x + log(e - 1)), which is 0 there and else as good.

    The paper has no inverse, but there is one. With A = w.z + b the scalar equation t + c tanh t = A has one
    solution, t = a; then x = z - u' tanh t. It is found by Newton's method from that side of the solution
    from which the method cannot overshoot, in a fixed number of steps. `inverse` can be differentiated twice.

    1 + c is carried as what it is made from, a softplus: near c = -1, where f all but folds, 1 + c sech^2 a
    computed as it is written would lose all its digits.

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
        push, _, margin = self._push()
        wide = x.to(push.dtype)
        a = self._along(wide)
        z = wide + push * torch.tanh(a)[:, None]
        return z.to(x.dtype), _log_slope(a, margin).to(x.dtype)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_vectors(z, len(self.w), "Planar")
        push, c, margin = self._push()
        wide = z.to(push.dtype)
        a = _solve(self._along(wide), c, margin)
        x = wide - push * torch.tanh(a)[:, None]
        return x.to(z.dtype), -_log_slope(a, margin).to(z.dtype)

    def _along(self, x: Tensor) -> Tensor:
        """w.x + b, (N,). Not by autocast, as `_push`: the inverse solves for what was computed."""
        with without_autocast(x.device.type):
            return x @ self.w.to(x.dtype) + self.b.to(x.dtype)

    def _push(self) -> tuple[Tensor, Tensor, Tensor]:
        """u' with shape (D,), c = w.u' and the margin 1 + c > 0, both ().

        In single precision at least: rounded to half, c may be below -1, and f folds.
        """
        dtype = torch.promote_types(self.w.dtype, torch.float32)
        w, u = self.w.to(dtype), self.u.to(dtype)
        with without_autocast(self.w.device.type):
            along = w @ u
        margin = softplus(along + _UNIT).clamp_min(torch.finfo(along.dtype).tiny)
        # margin - 1 without its cancellation: softplus(x + log(e - 1)) = 1 + log1p((1 - 1/e) (exp(x) - 1)).
        small = torch.log1p((1 - 1 / math.e) * torch.expm1(along.clamp_max(1)))
        c = torch.where(along < 1, small, margin - 1)
        # Where w is 0, so is what it is multiplied with.
        square = w.square().sum().clamp_min(torch.finfo(dtype).tiny)
        return u + (c - along) / square * w, c, margin


def _sech2(a: Tensor) -> Tensor:
    """1 / cosh^2 a, without the digits that 1 - tanh^2 a loses for large a."""
    e = (-2 * a.abs()).exp()
    return 4 * e / (1 + e).square()


def _log_slope(a: Tensor, margin: Tensor) -> Tensor:
    """log(1 + c sech^2 a) as log(margin sech^2 a + tanh^2 a), shape of a."""
    return (margin * _sech2(a) + torch.tanh(a).square()).log()


def _solve(target: Tensor, c: Tensor, margin: Tensor) -> Tensor:
    """The t with t + c tanh t = target, elementwise, to machine precision.

    The equation is odd, so it is solved for |target|. For t > 0 its left side h is concave where c > 0 and
    convex where c < 0: tangents lie on one side of it, and Newton's steps from the lower, or the upper, side
    go to the solution without passing it. The starts are bounds of the solution from that side: h is at most
    (1 + c) t and at most t + c where c > 0; where c < 0 it is at least (1 + c) t and t + c and, since
    tanh t < t / (1 + t^2 / (3 + t^2 / 5)) (its continued fraction), t^3 / (3 + 1.2 t^2).
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
    # Two more, which are differentiated: their first and second derivatives are the implicit function's.
    for _ in range(2):
        t = t - (t + c * torch.tanh(t) - target) / _slope(t, margin).clamp_min(tiny)
    return t


def _slope(t: Tensor, margin: Tensor) -> Tensor:
    return margin * _sech2(t) + torch.tanh(t).square()
