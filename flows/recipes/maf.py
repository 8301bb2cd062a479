"""Masked autoregressive flow."""

from collections.abc import Sequence

from flows.actnorm import ActNorm
from flows.autoregressive import MaskedAutoregressive
from flows.clamp import SoftplusScale
from flows.flow import Flow
from flows.laws import Affine, Law
from flows.permutation import Permutation
from flows.recipes.shared import build_flow, require_counts, validate_event_shape
from flows.reshape import Flatten
from flows.transform import Transform


def maf(
    event_shape: Sequence[int],
    *,
    layers: int = 5,
    hidden: Sequence[int] = (64, 64),
    law: Law | None = None,
    levels: int | None = None,
    alpha: float = 0.05,
    context: int = 0,
) -> Flow:
    """Build MAF (Papamakarios et al. 2017, arXiv 1705.07057).

    Masked autoregressive layers; the order of the dimensions is reversed from each layer to the next (section
    3.1). Images become vectors. Departures from the paper: `ActNorm` replaces batch normalisation, and the
    scale is a softplus instead of an exponential. The networks start small but random: from the identity,
    fits of densities with several modes get stuck more often.

    >>> import torch
    >>> maf((3,), hidden=(16,)).log_prob(torch.zeros(4, 3)).shape
    torch.Size([4])

    Args:
        event_shape: (D,) or (C, H, W).
        layers: number of autoregressive layers.
        hidden: widths of each network's hidden layers.
        law: law without parameters of its own, since all layers share it; by default affine with
            `SoftplusScale`.
        levels, alpha, context: see `flows.recipes`.
    """
    shape = validate_event_shape(event_shape, "maf")
    require_counts("maf", layers=layers)
    flat = Flatten(shape)
    law = Affine(SoftplusScale()) if law is None else law
    steps: list[Transform] = [flat]
    for layer in range(layers):
        if layer:
            steps.append(Permutation.reversing(flat.features))
        masked = MaskedAutoregressive(flat.features, hidden, law, context=context, start=0.3)
        steps += [ActNorm(flat.features), masked]
    return build_flow(steps, (flat.features,), levels, alpha=alpha)
