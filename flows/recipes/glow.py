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
from flows.recipes.events import expect_counts, expect_event, expect_halves, flow_of
from flows.recipes.levels import expect_scales, squeezed_levels
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
    recompute: bool = False,
    law: Law | None = None,
) -> Flow:
    """Glow (Kingma and Dhariwal 2018, arXiv 1807.03039).

    Images: scales of squeeze and steps, each step activation normalisation, invertible 1x1 convolution and
    affine coupling; half of the channels leave after each scale but the last, under a prior that is learned
    and depends on the channels that go on. Vectors: the same steps, with the 1x1 convolution as a linear
    layer. The base has learned means and deviations, as in the authors' code.

    >>> import torch
    >>> glow((1, 8, 8), steps=2, hidden=8).log_prob(torch.randn(3, 1, 8, 8)).shape
    torch.Size([3])

    Args:
        event_shape: (D,), D >= 2, or (C, H, W) whose height and width can be halved `scales` times.
        scales: of images; the paper's L.
        steps: per scale; the paper's K.
        hidden: channels, or features, of the conditioners' two hidden layers.
        levels: L of integer data 0 ... L - 1, dequantised and brought to the real line by a logit.
        alpha: of that logit; see `Logit`.
        context: K of a context (N, K), or 0; maps (N, K, H, W) would not fit what is squeezed.
        recompute: see `Compose`.
        law: of the couplings, which share it, so one without parameters of its own; the affine one with
            Glow's sigmoid scale unless given.
    """
    shape = expect_event(event_shape, "glow")
    expect_counts("glow", steps=steps)
    law = Affine(SigmoidScale()) if law is None else law

    def step(channels: int) -> list[Transform]:
        halves = Halves(channels)
        sizes = (halves.conditioning, hidden, law.per_element * halves.transformed)
        network = (
            MLP(sizes[0], (hidden, hidden), sizes[2], context=context)
            if len(shape) == 1
            else GlowNet(sizes, context=context)
        )
        return [ActNorm(channels), InvertibleConv1x1(channels), Coupling(halves, network, law)]

    def prior(channels: int) -> Transform:
        halves = Halves(channels)
        sizes = (halves.conditioning, hidden, 2 * halves.transformed)
        return Coupling(halves, GlowNet(sizes, context=context), Affine(SoftClamp(4.0)))

    base = DiagonalNormal(shape)
    if len(shape) == 1:
        expect_halves(shape[0], "glow")
        made = [layer for _ in range(steps) for layer in step(shape[0])]
        return flow_of(made, shape, levels, alpha=alpha, recompute=recompute, base=base)
    expect_scales(shape, scales, scales, "glow")

    def all_steps(channels: int) -> list[Transform]:
        return [layer for _ in range(steps) for layer in step(channels)]

    made = squeezed_levels(shape[0], scales, all_steps, prior, recompute=recompute)
    return flow_of(made, shape, levels, alpha=alpha, base=base)
