"""Masked autoregressive flow."""

from collections.abc import Sequence

from flows.actnorm import ActNorm
from flows.autoregressive import MaskedAutoregressive
from flows.clamp import SoftplusScale
from flows.flow import Flow
from flows.laws import Affine, Law
from flows.permutation import Permutation
from flows.recipes.events import expect_counts, expect_event, flow_of
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
    """MAF (Papamakarios et al. 2017, arXiv 1705.07057).

    Masked autoregressive layers, with the order of the dimensions reversed from each to the next (section
    3.1) and `ActNorm` where the paper has batch normalisation. The scale is a softplus, not the paper's
    exponential, and the networks start at random, though small: from the identity, where
    `MaskedAutoregressive` starts on its own, fits of densities with several modes get stuck more often.
    Images are taken as vectors.

    >>> import torch
    >>> maf((3,), hidden=(16,)).log_prob(torch.zeros(4, 3)).shape
    torch.Size([4])

    Args:
        event_shape: (D,) or (C, H, W).
        layers: how many.
        hidden: widths of each network's layers.
        law: of the layers, which share it, so one without parameters of its own; affine with
            `SoftplusScale` unless given.
        levels: L of integer data 0 ... L - 1, dequantised and brought to the real line by a logit.
        alpha: of that logit; see `Logit`.
        context: K of a context (N, K), or 0.
    """
    shape = expect_event(event_shape, "maf")
    expect_counts("maf", layers=layers)
    flat = Flatten(shape)
    law = Affine(SoftplusScale()) if law is None else law
    steps: list[Transform] = [flat]
    for layer in range(layers):
        if layer:
            steps.append(Permutation.reversing(flat.features))
        masked = MaskedAutoregressive(flat.features, hidden, law, context=context, start=0.3)
        steps += [ActNorm(flat.features), masked]
    return flow_of(steps, (flat.features,), levels, alpha=alpha)
