"""Masked autoregressive flow."""

from collections.abc import Sequence
from typing import cast

from torch import nn

from flows.actnorm import ActNorm
from flows.autoregressive import MaskedAutoregressive
from flows.flow import Flow
from flows.laws import Law
from flows.permutation import Permutation
from flows.recipes.events import expect_event, flow_of
from flows.reshape import Flatten
from flows.transform import Transform


def maf(
    event_shape: Sequence[int],
    *,
    layers: int = 5,
    hidden: Sequence[int] = (64, 64),
    law: Law | None = None,
    levels: int | None = None,
    context: int = 0,
) -> Flow:
    """MAF (Papamakarios et al. 2017, arXiv 1705.07057).

    Masked autoregressive layers, with the order of the dimensions reversed from each to the next (section
    3.1) and `ActNorm` where the paper has batch normalisation. All of every network starts at random: from
    the identity, where `MaskedAutoregressive` starts on its own, fits of densities with several modes get
    stuck more often. Images are taken as vectors.

    >>> import torch
    >>> maf((3,), hidden=(16,)).log_prob(torch.zeros(4, 3)).shape
    torch.Size([4])

    Args:
        event_shape: (D,) or (C, H, W).
        layers: how many.
        hidden: widths of each network's layers.
        law: of the layers; affine unless given.
        levels: L of integer data 0 ... L - 1, dequantised and brought to the real line by a logit.
        context: K of a context (N, K), or 0.
    """
    shape = expect_event(event_shape, "maf")
    flat = Flatten(shape)
    steps: list[Transform] = [flat]
    for layer in range(layers):
        if layer:
            steps.append(Permutation.reversing(flat.features))
        masked = MaskedAutoregressive(flat.features, hidden, law, context=context)
        cast("nn.Linear", masked.network[-1]).reset_parameters()
        steps += [ActNorm(flat.features), masked]
    return flow_of(steps, (flat.features,), levels)
