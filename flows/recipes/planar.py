"""Stacks of planar and of radial flows."""

from flows.compose import Compose
from flows.distributions import DiagonalNormal
from flows.flow import Flow
from flows.planar import Planar
from flows.radial import Radial


def planar(features: int, *, depth: int = 16) -> Flow:
    """A stack of planar flows (Rezende and Mohamed 2015, arXiv 1505.05770, section 4.1).

    Taken from data to latents, so that densities are cheap; the paper, which fits an approximate posterior,
    takes them from latents to data: `Inverse` of the transform.

    >>> import torch
    >>> planar(2, depth=4).log_prob(torch.zeros(3, 2)).shape
    torch.Size([3])

    Args:
        features: D.
        depth: how many.
    """
    return Flow(Compose(Planar(features) for _ in range(depth)), DiagonalNormal((features,)))


def radial(features: int, *, depth: int = 16) -> Flow:
    """A stack of radial flows, as `planar`.

    >>> import torch
    >>> radial(2, depth=4).log_prob(torch.zeros(3, 2)).shape
    torch.Size([3])

    Args:
        features: D.
        depth: how many.
    """
    return Flow(Compose(Radial(features) for _ in range(depth)), DiagonalNormal((features,)))
