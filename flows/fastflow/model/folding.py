"""Folding of couplings with the affines before and after them."""

from typing import NamedTuple, cast

import torch
from torch import Tensor

from flows import Affine, ConvNet, Coupling, DepthwiseNet, SoftClamp


class FoldedCoupling(NamedTuple):
    """Coupling folded with the affines before and after it: z = (x + before) exp(s) + t.

    s = 2 c sigmoid(a) + level, where a and t are the outputs of the convolutions.
    """

    bound: float
    first_weight: Tensor
    first_bias: Tensor
    last_weight: Tensor
    last_bias: Tensor
    level: Tensor
    before: Tensor
    middle_weight: Tensor | None
    middle_bias: Tensor | None


def fold_coupling(
    coupling: Coupling,
    after: tuple[Tensor, Tensor],
    before: tuple[Tensor, Tensor] | None,
    precision: torch.dtype,
) -> FoldedCoupling:
    """Fold g ((g' x + h') exp(c tanh(a / c)) + t) + h into (x + h' / g') exp(s) + t'.

    Args:
        coupling: affine coupling of channel halves with a `SoftClamp` and a `ConvNet` or `DepthwiseNet`.
        after: log g and h of the next affine at the transformed channels, each (C',).
        before: log g' and h' of an affine that is not yet applied to these channels, or None.
        precision: dtype of the convolutions' weights.
    """
    net = cast(ConvNet | DepthwiseNet, coupling.conditioner)
    bound = cast(SoftClamp, cast(Affine, coupling.law).clamp).bound
    log_gain, shift = after
    zeros = torch.zeros_like(shift)
    scale = torch.cat([torch.full_like(shift, 2 / bound), log_gain.exp()])
    bias = torch.addcmul(torch.cat([zeros, shift]), cast(Tensor, net.last.bias), scale)
    level, earlier = log_gain - bound, zeros
    if before is not None:
        level = level + before[0]
        earlier = before[1] * (-before[0]).exp()
    return FoldedCoupling(
        bound,
        net.first.weight.to(precision),
        cast(Tensor, net.first.bias).to(precision),
        (net.last.weight * per_channel(scale).transpose(0, 1)).to(precision),
        bias.to(precision),
        level,
        earlier,
        net.middle.weight.to(precision) if isinstance(net, DepthwiseNet) else None,
        cast(Tensor, net.middle.bias).to(precision) if isinstance(net, DepthwiseNet) else None,
    )


def per_channel(channels: Tensor) -> Tensor:
    """Reshape (C,) to broadcast over maps."""
    return channels.view(1, -1, 1, 1)
