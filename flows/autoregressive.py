"""Masked autoregressive transform: each dimension is transformed given those before it."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from flows.conditioners import start_near_zero
from flows.laws import Affine, Law
from flows.transform import Transform, require_positive, require_vectors, without_autocast


class MaskedAutoregressive(Transform):
    """Masked autoregressive flow (Papamakarios et al. 2017, MAF, arXiv 1705.07057, eq. 3-5), over vectors.

        z_i = g(x_i; m_i(x_1 ... x_(i-1)))       g: the law, increasing in x_i
        log det = sum_i log dg/dx_i              the Jacobian is triangular

    One network computes all m_i at once: masks on its weights take away every path from x_j to m_i with
    j >= i (Germain et al. 2015, MADE, arXiv 1502.03509, eq. 8-9). `forward`, the direction of densities, is
    one pass; `inverse`, that of samples, takes D passes, one for each dimension. `Inverse` of this class is
    the inverse autoregressive flow (arXiv 1606.04934).

    A hidden layer of fewer than D - 1 units cannot tell all dimensions apart. Its units are spread evenly,
    from x_1 to x_(D-1), so that each of these reaches m_D, and an m_i misses only some x_j right before it;
    a single unit can only be of x_1, and lets nothing else through.

    With a context it is fewer than D units: m_1 sees the context through units of no x_j, of which each layer
    keeps a share, and every m_i sees it whatever the widths are. So a single unit lets no x_j through, but
    the context alone: then no dimension depends on another.

    >>> _ = torch.manual_seed(0)
    >>> flow = MaskedAutoregressive(3, (16,))
    >>> x = torch.randn(2, 3)
    >>> torch.allclose(flow.inverse(flow.forward(x)[0])[0], x, atol=1e-6)
    True

    Args:
        features: D.
        hidden: width of each hidden layer.
        law: affine unless given.
        context: K of a context (N, K), which gets the input's dtype, or 0.
        start: multiplies the last layer's random weights; 0 starts as the identity.
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
        # A unit of degree d sees x_1 ... x_d; with a context, units of degree 0 bring it to the first m.
        lowest = 0 if context else 1
        highest = max(features - 1, lowest)
        degrees = [inputs, *(_degrees(lowest, highest, width) for width in hidden)]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(degrees):
            layers += [_MaskedLinear(before, after), nn.ReLU()]
        # m_i sees what is before x_i.
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
        # Masking takes as long as the products of a few rows, so it is done once and not in every pass.
        layers = [layer.masked() if isinstance(layer, _MaskedLinear) else layer for layer in self.network]

        def network(seen: Tensor) -> Tensor:
            for layer in layers:
                seen = layer(seen)
            return seen

        for i in range(self.features):
            found, log_derivatives = self.law.inverse(z, self._law_parameters(network, x, context))
            # What is not known yet may be anything, infinity too, which no mask makes 0 again.
            x = torch.where(known <= i, found, 0.0)
        return x, log_derivatives.sum(1)

    def _law_parameters(
        self, network: Callable[[Tensor], Tensor], x: Tensor, context: Tensor | None
    ) -> Tensor:
        """(N, per_element, D)."""
        if self.context:
            if context is None or context.shape != (x.shape[0], self.context):
                got = "none" if context is None else str(tuple(context.shape))
                raise ValueError(f"expected a context of shape ({x.shape[0]}, {self.context}); got {got}")
            x = torch.cat([x, context.to(x.dtype)], 1)
        # Not by autocast: the inverse finds its x one by one, near those of the way forth and not at them,
        # and rounding may part the two.
        with without_autocast(x.device.type):
            parameters = network(x)
        return parameters.reshape(x.shape[0], self.law.per_element, self.features)


def _degrees(lowest: int, highest: int, width: int) -> list[int]:
    """Degrees of the units of a hidden layer: each as often as any other, or evenly spread."""
    span = highest - lowest + 1
    if width >= span:
        return [lowest + i % span for i in range(width)]
    # Both ends, or the last dimensions would have no path to anything; one unit has but one end.
    return [lowest + i * (span - 1) // max(1, width - 1) for i in range(width)]


class _MaskedLinear(nn.Linear):
    """A linear layer of which some weights are 0 for good: an output sees inputs of its degree at most.

    Args:
        before: degrees of the inputs.
        after: degrees of the outputs.
    """

    def __init__(self, before: Sequence[int], after: Sequence[int]) -> None:
        super().__init__(len(before), len(after))
        # As plain numbers too: made on "meta", the mask has none, and what is saved leaves it out.
        self.degrees = tuple(before), tuple(after)
        self.register_buffer("mask", self.fresh_mask(), persistent=False)
        self.mask: Tensor
        self.register_load_state_dict_post_hook(_remask)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        return self.masked()(x)

    def fresh_mask(self) -> Tensor:
        """(out, in), True where a weight may be other than 0."""
        before, after = (torch.tensor(degrees, device=self.weight.device) for degrees in self.degrees)
        return after[:, None] >= before

    def masked(self) -> Callable[[Tensor], Tensor]:
        """The layer as a function, with its weights masked already."""
        weight = torch.where(self.mask, self.weight, 0.0)
        return partial(nn.functional.linear, weight=weight, bias=self.bias)


def _remask(module: _MaskedLinear, _: Any) -> None:
    with torch.inference_mode(False):  # loaded within it, the flow could not be trained
        module.mask = module.fresh_mask()
