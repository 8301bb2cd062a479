"""Masked autoregressive transform: each dimension is transformed given all before it."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from flows.conditioners import start_near_zero
from flows.laws import Affine, Law
from flows.transform import Transform, require_positive, require_vectors, without_autocast


class MaskedAutoregressive(Transform):
    """Masked autoregressive flow (MAF) over vectors.

        z_i = g(x_i; m_i(x_1 ... x_(i-1)))       g: the law, increasing in x_i
        log |det df/dx| = sum_i log dg/dx_i      the Jacobian is triangular

    Papamakarios et al. 2017, arXiv 1705.07057, eq. 3-5. One network computes all m_i at once. Masks on its
    weights remove every path from x_j to m_i with j >= i (Germain et al. 2015, MADE, arXiv 1502.03509, eq.
    8-9). `forward` takes one pass; `inverse` takes D passes, one per dimension. The `Inverse` of this class
    is the inverse autoregressive flow (arXiv 1606.04934).

    Hidden layers should have at least D - 1 units, or D with a context. Narrower layers spread their units
    evenly over x_1 ... x_(D-1), so an m_i may miss some x_j right before it. With a context each layer keeps
    some units for the context alone, because m_1 sees no x_j. So a single unit passes x_1 only, or, with a
    context, the context only.

    >>> _ = torch.manual_seed(0)
    >>> flow = MaskedAutoregressive(3, (16,))
    >>> x = torch.randn(2, 3)
    >>> torch.allclose(flow.inverse(flow.forward(x)[0])[0], x, atol=1e-6)
    True

    Args:
        features: D.
        hidden: width of each hidden layer.
        law: coupling law, by default affine.
        context: K of a context (N, K), or 0. The context is cast to the input's dtype.
        start: factor of the last layer's random weights; with 0 the transform starts as the identity.
    """

    def __init__(
        self,
        features: int,
        hidden: Sequence[int] = (64, 64),
        law: Law | None = None,
        *,
        context: int = 0,
        start: float = 0.0,
    ) -> None:
        super().__init__()
        require_positive(features, "MaskedAutoregressive")
        self.features = features
        self.context = context
        self.law = Affine() if law is None else law
        inputs = [*range(1, features + 1), *(context * [0])]
        # A unit of degree d sees x_1 ... x_d. With a context, units of degree 0 pass it to m_1.
        lowest = 0 if context else 1
        highest = max(features - 1, lowest)
        degrees = [inputs, *(_degrees(lowest, highest, width) for width in hidden)]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(degrees):
            layers += [_MaskedLinear(before, after), nn.ReLU()]
        # m_i sees x_1 ... x_(i-1).
        last = _MaskedLinear(degrees[-1], self.law.per_element * [*range(features)])
        start_near_zero(last, start)
        self.network = nn.Sequential(*layers, last)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_vectors(x, self.features, "MaskedAutoregressive")
        z, log_derivatives = self.law.forward(x, self._law_parameters(self.network, x, context))
        return z, log_derivatives.sum(1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_vectors(z, self.features, "MaskedAutoregressive")
        known = torch.arange(self.features, device=z.device)
        x, log_derivatives = torch.zeros_like(z), torch.zeros_like(z)
        # Mask the weights once, not in every pass: masking costs as much as the product of a few rows.
        layers = [layer.masked() if isinstance(layer, _MaskedLinear) else layer for layer in self.network]

        def network(seen: Tensor) -> Tensor:
            for layer in layers:
                seen = layer(seen)
            return seen

        for i in range(self.features):
            found, log_derivatives = self.law.inverse(z, self._law_parameters(network, x, context))
            # Values not yet known may be infinite, and 0 times infinity is NaN.
            x = torch.where(known <= i, found, 0.0)
        return x, log_derivatives.sum(1)

    def _law_parameters(
        self, network: Callable[[Tensor], Tensor], x: Tensor, context: Tensor | None
    ) -> Tensor:
        """Compute the parameters of the law, (N, per_element, D)."""
        if self.context:
            if context is None or context.shape != (x.shape[0], self.context):
                got = "none" if context is None else str(tuple(context.shape))
                raise ValueError(f"expected a context of shape ({x.shape[0]}, {self.context}); got {got}")
            x = torch.cat([x, context.to(x.dtype)], 1)
        # Without autocast: the inverse recomputes these from an x that differs in its last digit, and coarse
        # rounding may then give another result.
        with without_autocast(x.device.type):
            parameters = network(x)
        return parameters.reshape(x.shape[0], self.law.per_element, self.features)


def _degrees(lowest: int, highest: int, width: int) -> list[int]:
    """Return the degrees of a hidden layer's units: all equally often, or evenly spread."""
    span = highest - lowest + 1
    if width >= span:
        return [lowest + i % span for i in range(width)]
    # Include both ends, or some dimensions would have no path to any output.
    return [lowest + i * (span - 1) // max(1, width - 1) for i in range(width)]


class _MaskedLinear(nn.Linear):
    """Linear layer whose outputs see only inputs of at most their own degree.

    Args:
        before: degrees of the inputs.
        after: degrees of the outputs.
    """

    def __init__(self, before: Sequence[int], after: Sequence[int]) -> None:
        super().__init__(len(before), len(after))
        # True for weights that may differ from 0, (out, in).
        self.register_buffer("mask", torch.tensor(after)[:, None] >= torch.tensor(before), persistent=False)
        self.mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return self.masked()(x)

    def masked(self) -> Callable[[Tensor], Tensor]:
        """Return the layer as a function with its masked weights."""
        weight = torch.where(self.mask, self.weight, 0.0)
        return partial(nn.functional.linear, weight=weight, bias=self.bias)
