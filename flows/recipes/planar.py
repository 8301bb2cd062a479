"""Stacks of planar and of radial flows."""

from flows.actnorm import ActNorm
from flows.compose import Compose
from flows.distributions import DiagonalNormal
from flows.flow import Flow
from flows.planar import Planar
from flows.radial import Radial
from flows.recipes.shared import require_counts


def planar(features: int, *, depth: int = 16) -> Flow:
    """Build a stack of planar flows (Rezende and Mohamed 2015, arXiv 1505.05770, section 4.1).

    The layers run from data to latents, so densities are cheap. The paper fits an approximate posterior and
    runs them from latents to data: take the `Inverse` of the transform. An `ActNorm` comes first, because a
    plane that starts far from the data does not find them. Within an `Inverse` data do not initialise it; see
    `ActNorm`.

    >>> import torch
    >>> planar(2, depth=4).log_prob(torch.zeros(3, 2)).shape
    torch.Size([3])

    Args:
        features: D.
        depth: number of layers.
    """
    return _stack(Planar, features, depth, "planar")


def radial(features: int, *, depth: int = 16) -> Flow:
    """Build a stack of radial flows after an `ActNorm`, like `planar`.

    >>> import torch
    >>> radial(2, depth=4).log_prob(torch.zeros(3, 2)).shape
    torch.Size([3])

    Args:
        features: D.
        depth: number of layers.
    """
    return _stack(Radial, features, depth, "radial")


def _stack(layer: type[Planar | Radial], features: int, depth: int, recipe: str) -> Flow:
    require_counts(recipe, depth=depth)
    steps = [ActNorm(features), *(layer(features) for _ in range(depth))]
    return Flow(Compose(steps), DiagonalNormal((features,)))
