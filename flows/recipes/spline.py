"""Neural spline flow with couplings."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flows.actnorm import ActNorm
from flows.conditioners import MLP
from flows.conv1x1 import InvertibleConv1x1
from flows.coupling import Coupling
from flows.distributions import DiagonalNormal
from flows.flow import Flow
from flows.laws import Law, RationalQuadraticSpline
from flows.partition import Halves
from flows.recipes.glow import glow
from flows.recipes.shared import (
    build_flow,
    require_counts,
    require_scales,
    require_two_channels,
    validate_event_shape,
)
from flows.transform import Transform, require_vectors


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
) -> Flow:
    """Build a neural spline flow, RQ-NSF (C) (Durkan et al. 2019, arXiv 1906.04032, section 3).

    A step on vectors is an `ActNorm`, a linear layer that starts by reversing the dimensions, learned splines
    on the conditioning half, and a spline coupling. Images take `glow` with spline couplings; their
    conditioning half is unchanged. The conditioners are an `MLP`, or `GlowNet` for images, instead of the
    paper's residual networks.

    >>> import torch
    >>> neural_spline((2,), steps=2, hidden=16).log_prob(torch.zeros(3, 2)).shape
    torch.Size([3])

    Args:
        event_shape: (D,) with D >= 2, or (C, H, W) with a height and width divisible by 2^scales.
        scales: number of scales for images.
        steps: steps per scale.
        hidden: width of the two hidden layers of each conditioner.
        bins: K of the splines.
        bound: B of the splines, which are the identity outside [-B, B].
        levels, alpha, context: see `flows.recipes`.
    """
    law = RationalQuadraticSpline(bins, bound)
    shape = validate_event_shape(event_shape, "neural_spline")
    require_counts("neural_spline", steps=steps)
    if len(shape) == 1:
        require_two_channels(shape[0], "neural_spline")
        made = [layer for _ in range(steps) for layer in _vector_step(shape[0], hidden, law, context)]
        return build_flow(made, shape, levels, alpha=alpha, base=DiagonalNormal(shape))
    require_scales(shape, scales, scales, "neural_spline")
    return glow(
        event_shape,
        scales=scales,
        steps=steps,
        hidden=hidden,
        levels=levels,
        alpha=alpha,
        context=context,
        law=law,
    )


def _vector_step(features: int, hidden: int, law: Law, context: int) -> list[Transform]:
    halves = Halves(features)
    network = MLP(
        halves.conditioning, (hidden, hidden), law.per_element * halves.transformed, context=context
    )
    return [
        ActNorm(features),
        InvertibleConv1x1.reversing(features),
        _Elementwise(features, halves.conditioning, law),
        Coupling(halves, network, law),
    ]


class _Elementwise(Transform):
    """A law with learned constant parameters, on the first dimensions of (N, D).

    Args:
        features: D.
        transformed: number of dimensions that the law transforms.
        law: law that is the identity where all parameters are 0.
    """

    def __init__(self, features: int, transformed: int, law: Law) -> None:
        super().__init__()
        self.features = features
        self.law = law
        self.raw = nn.Parameter(torch.zeros(law.per_element, transformed))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_vectors(x, self.features, "neural_spline")
        first, rest = self._split(x)
        z, log_derivatives = self.law.forward(first, self.raw.expand(x.shape[0], -1, -1))
        return torch.cat([z, rest], 1), log_derivatives.sum(1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_vectors(z, self.features, "neural_spline")
        first, rest = self._split(z)
        x, log_derivatives = self.law.inverse(first, self.raw.expand(z.shape[0], -1, -1))
        return torch.cat([x, rest], 1), log_derivatives.sum(1)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        transformed = self.raw.shape[1]
        return x[:, :transformed], x[:, transformed:]
