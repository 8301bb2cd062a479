"""Dequantisation and logit: from integers to real numbers."""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from flows.transform import Transform, require_floating


class UniformDequantization(Transform):
    """Uniform dequantisation z = (x + u) / L of integers 0 ... L - 1, with u uniform on [0, 1).

        log |det df/dx| = -D log L
        E_u log p(x + u) <= log P(x)

    Theis et al. 2016, arXiv 1511.01844, section 3.1. A continuous density fitted to integers can grow without
    bound. With the noise, its mean log-likelihood is a lower bound of the integers' log-probability. A `Flow`
    that begins with this layer estimates that bound by one draw of u, and its samples are integers.

    This layer is not a bijection: `forward` draws u anew, and `inverse` rounds down and clamps to
    0 ... L - 1. Half precision cannot hold 256 levels and the noise, so some integers change there.

    >>> layer = UniformDequantization(17)
    >>> x = torch.randint(17, (5, 1, 8, 8)).float()
    >>> y, log_det = layer.forward(x)
    >>> torch.equal(layer.inverse(y)[0], x), math.isclose(log_det[0].item(), -64 * math.log(17), rel_tol=1e-6)
    (True, True)

    Args:
        levels: L >= 2.

    Raises:
        ValueError: there are fewer than two levels.
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        if levels < 2:
            raise ValueError(f"UniformDequantization expected at least 2 levels; got {levels}")
        self.levels = levels
        # Integer input gets the dtype of this buffer, so that it follows `Flow.to(...)`.
        self.register_buffer("origin", torch.zeros(()), persistent=False)
        self.origin: Tensor

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.with_noise(x, torch.rand_like(x.to(self._dtypes(x)[1])))

    def with_noise(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Dequantise x with a given noise u in [0, 1), shaped like x."""
        dtype, wide = self._dtypes(x)
        x = x.to(wide)
        # Keep the sum from rounding up to the next integer.
        y = torch.minimum(x + noise.to(wide), torch.nextafter(x + 1, x)) / self.levels
        # The quotient may also round out of its cell: it does for 6 % of 10 000 levels at noise 0.
        found = (y * self.levels).floor()
        y = torch.where(found == x, y, torch.nextafter(y, torch.where(found < x, 2.0, -1.0)))
        return y.to(dtype), self._log_det(x.to(dtype), -1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (z * self.levels).floor().clamp(0, self.levels - 1), self._log_det(z, 1)

    def _dtypes(self, x: Tensor) -> tuple[torch.dtype, torch.dtype]:
        """Return the dtype of the result and that of the computation, float32 at least."""
        dtype = x.dtype if x.is_floating_point() else self.origin.dtype
        return dtype, torch.promote_types(dtype, torch.float32)

    def _log_det(self, x: Tensor, sign: int) -> Tensor:
        return x.new_full((x.shape[0],), sign * x.shape[1:].numel() * math.log(self.levels))


class Logit(Transform):
    """Elementwise logit z = logit(p) with p = a + (1 - 2a) x.

        log |det df/dx| = sum of log(1 - 2a) - log p - log(1 - p)

    Dinh et al. 2017, RealNVP, arXiv 1605.08803, section 4.1. The paper writes a + (1 - a) x, whose logit is
    infinite at x = 1; its code has the factor 2. The domain is (-a, 1 - a) / (1 - 2a), which is (0, 1) for
    a = 0. At its ends z and log det are infinite and `Flow.log_prob` is NaN; beyond them both are NaN.

    >>> layer = Logit().double()
    >>> x = torch.tensor([[0.0, 0.5, 1.0]], dtype=torch.float64)
    >>> torch.allclose(layer.inverse(layer.forward(x)[0])[0], x)
    True

    Args:
        alpha: a in [0, 0.5), keeps p away from 0 and 1.

    Raises:
        ValueError: alpha is not in [0, 0.5).
    """

    def __init__(self, alpha: float = 0.05) -> None:
        super().__init__()
        if not 0 <= alpha < 0.5:
            raise ValueError(f"Logit expected alpha in [0, 0.5); got {alpha}")
        self.alpha = alpha

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_floating(x, "Logit")
        p = self.alpha + (1 - 2 * self.alpha) * x
        low, high = p.log(), torch.log1p(-p)
        return low - high, (math.log(1 - 2 * self.alpha) - low - high).flatten(1).sum(1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_floating(z, "Logit")
        x = (torch.sigmoid(z) - self.alpha) / (1 - 2 * self.alpha)
        log_derivatives = logsigmoid(z) + logsigmoid(-z) - math.log(1 - 2 * self.alpha)
        return x, log_derivatives.flatten(1).sum(1)
