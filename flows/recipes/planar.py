"""Stacks of planar and of radial flows."""

from flows.actnorm import ActNorm
from flows.compose import Compose
from flows.distributions import DiagonalNormal
from flows.flow import Flow
from flows.planar import Planar
from flows.radial import Radial
from flows.recipes.events import expect_counts


def planar(features: int, *, depth: int = 16) -> Flow:
    """A stack of planar flows (Rezende and Mohamed 2015, arXiv 1505.05770, section 4.1).

    Taken from data to latents, so that densities are cheap; the paper, which fits an approximate posterior,
    takes them from latents to data: `Inverse` of the transform. `ActNorm` comes first: a plane, or a centre,
    that starts far from the data does not find them. (Of the `Inverse` data do not set it; see `ActNorm`.)

    >>> import torch
    >>> planar(2, depth=4).log_prob(torch.zeros(3, 2)).shape
    torch.Size([3])

    Args:
        features: D.
        depth: how many.
    """
    expect_counts("planar", depth=depth)
    steps = [ActNorm(features), *(Planar(features) for _ in range(depth))]
    return Flow(Compose(steps), DiagonalNormal((features,)))


def radial(features: int, *, depth: int = 16) -> Flow:
    """A stack of radial flows after an `ActNorm`, as `planar`.

    >>> import torch
    >>> radial(2, depth=4).log_prob(torch.zeros(3, 2)).shape
    torch.Size([3])

    Args:
        features: D.
        depth: how many.
    """
    expect_counts("radial", depth=depth)
    steps = [ActNorm(features), *(Radial(features) for _ in range(depth))]
    return Flow(Compose(steps), DiagonalNormal((features,)))
