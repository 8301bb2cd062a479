"""Neural spline flow, with couplings."""

from collections.abc import Sequence

from flows.flow import Flow
from flows.laws import RationalQuadraticSpline
from flows.recipes.glow import glow


def neural_spline(
    event_shape: Sequence[int],
    *,
    scales: int = 2,
    steps: int = 6,
    hidden: int = 64,
    bins: int = 8,
    bound: float = 4.0,
    levels: int | None = None,
    alpha: float = 0.05,
    context: int = 0,
    recompute: bool = False,
) -> Flow:
    """RQ-NSF (C), without its splines of the identity half (Durkan et al. 2019, arXiv 1906.04032, section 3).

    Glow's steps with rational-quadratic splines for couplings: linear layers (LU) mix the dimensions in
    between, so that each is transformed in some step; the paper also sends the half that passes through
    splines that depend on nothing.

    >>> import torch
    >>> neural_spline((2,), steps=2, hidden=16).log_prob(torch.zeros(3, 2)).shape
    torch.Size([3])

    Args:
        event_shape: (D,), D >= 2, or (C, H, W) whose height and width can be halved `scales` times.
        scales: of images.
        steps: per scale.
        hidden: channels, or features, of the conditioners' two hidden layers.
        bins: K of the splines.
        bound: B of the splines, the identity beyond [-B, B].
        levels: L of integer data 0 ... L - 1, dequantised and brought to the real line by a logit.
        alpha: of that logit; see `Logit`.
        context: K of a context, or 0.
        recompute: see `Compose`.
    """
    return glow(
        event_shape,
        scales=scales,
        steps=steps,
        hidden=hidden,
        levels=levels,
        alpha=alpha,
        context=context,
        recompute=recompute,
        law=RationalQuadraticSpline(bins, bound),
    )
