"""Glow: activation normalisation, 1x1 convolution and affine coupling, on several scales."""

from collections.abc import Sequence

from flows.actnorm import ActNorm
from flows.clamp import SigmoidScale, SoftClamp
from flows.conditioners import MLP, GlowNet
from flows.conv1x1 import InvertibleConv1x1
from flows.coupling import Coupling
from flows.distributions import DiagonalNormal
from flows.flow import Flow
from flows.laws import Affine, Law
from flows.partition import Halves
from flows.recipes.shared import (
    build_flow,
    multiscale_steps,
    require_counts,
    require_scales,
    require_two_channels,
    validate_event_shape,
)
from flows.transform import Transform


def glow(
    event_shape: Sequence[int],
    *,
    scales: int = 2,
    steps: int = 8,
    hidden: int = 64,
    levels: int | None = None,
    alpha: float = 0.05,
    context: int = 0,
    law: Law | None = None,
) -> Flow:
    """Build Glow (Kingma and Dhariwal 2018, arXiv 1807.03039).

    A step is activation normalisation, invertible 1x1 convolution and affine coupling. On images each scale
    is a squeeze and its steps; all scales but the last then finish half of their channels, under a learned
    prior given the other half. Vectors take the same steps with a linear layer for the 1x1 convolution. The
    base has learned means and deviations, as in the authors' code.

    >>> import torch
    >>> glow((1, 8, 8), steps=2, hidden=8).log_prob(torch.randn(3, 1, 8, 8)).shape
    torch.Size([3])

    Args:
        event_shape: (D,) with D >= 2, or (C, H, W) with a height and width divisible by 2^scales.
        scales: number of scales for images; L in the paper.
        steps: steps per scale; K in the paper.
        hidden: width of the two hidden layers of each conditioner.
        levels, alpha, context: see `flows.recipes`.
        law: coupling law without parameters of its own, since all couplings share it; by default affine with
            Glow's sigmoid scale.
    """
    shape = validate_event_shape(event_shape, "glow")
    require_counts("glow", steps=steps)
    law = Affine(SigmoidScale()) if law is None else law
    base = DiagonalNormal(shape)
    if len(shape) == 1:
        require_two_channels(shape[0], "glow")
        vector_steps = _steps(steps, shape[0], hidden, law, context, images=False)
        return build_flow(vector_steps, shape, levels, alpha=alpha, base=base)
    require_scales(shape, scales, scales, "glow")
    image_steps = multiscale_steps(
        shape[0],
        scales,
        lambda channels: _steps(steps, channels, hidden, law, context, images=True),
        lambda channels: _split_prior(channels, hidden, context),
    )
    return build_flow(image_steps, shape, levels, alpha=alpha, base=base)


def _steps(
    count: int, channels: int, hidden: int, law: Law, context: int, *, images: bool
) -> list[Transform]:
    steps: list[Transform] = []
    for _ in range(count):
        halves = Halves(channels)
        sizes = (halves.conditioning, hidden, law.per_element * halves.transformed)
        network = (
            GlowNet(sizes, context=context)
            if images
            else MLP(sizes[0], (hidden, hidden), sizes[2], context=context)
        )
        steps += [ActNorm(channels), InvertibleConv1x1(channels), Coupling(halves, network, law)]
    return steps


def _split_prior(channels: int, hidden: int, context: int) -> Transform:
    """Build the learned prior of the finished half: an affine map given the other half."""
    halves = Halves(channels)
    sizes = (halves.conditioning, hidden, 2 * halves.transformed)
    return Coupling(halves, GlowNet(sizes, context=context), Affine(SoftClamp(4.0)))
