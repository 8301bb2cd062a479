"""Neural spline flow, with couplings."""

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
from flows.recipes.events import expect_counts, expect_event, expect_halves, flow_of
from flows.recipes.glow import glow
from flows.recipes.levels import expect_scales
from flows.transform import Transform, expect_vectors


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
    """RQ-NSF (C) (Durkan et al. 2019, Neural Spline Flows, arXiv 1906.04032, section 3), but its networks.

    Those are residual networks in the paper; here they are an `MLP` of two hidden layers, and `GlowNet` for
    images.

    Vectors: steps of `ActNorm`, a linear layer (LU) that starts as the reversal of the dimensions, and a
    coupling with rational-quadratic splines, whose identity half goes through splines too that depend on
    nothing. Images: `glow` with splines for its affine couplings; the identity half is left as it is.

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
        context: K of a context (N, K), or 0; maps (N, K, H, W) would not fit what is squeezed.
        recompute: see `Compose`.
    """
    law = RationalQuadraticSpline(bins, bound)
    shape = expect_event(event_shape, "neural_spline")
    expect_counts("neural_spline", steps=steps)
    if len(shape) == 1:
        expect_halves(shape[0], "neural_spline")
        made = [layer for _ in range(steps) for layer in _vector_step(shape[0], hidden, law, context)]
        return flow_of(made, shape, levels, alpha=alpha, recompute=recompute, base=DiagonalNormal(shape))
    expect_scales(shape, scales, scales, "neural_spline")
    return glow(
        event_shape,
        scales=scales,
        steps=steps,
        hidden=hidden,
        levels=levels,
        alpha=alpha,
        context=context,
        recompute=recompute,
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
    """The law on the first dimensions of (N, D), with learned parameters that depend on nothing.

    Args:
        features: D.
        transformed: how many of them.
        law: starts as the identity.
    """

    def __init__(self, features: int, transformed: int, law: Law) -> None:
        super().__init__()
        self.features = features
        self.law = law
        self.raw = nn.Parameter(torch.zeros(law.per_element, transformed))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        expect_vectors(x, self.features, "neural_spline")
        first, rest = self._split(x)
        z, log_derivatives = self.law.forward(first, self.raw.expand(x.shape[0], -1, -1))
        return torch.cat([z, rest], 1), log_derivatives.sum(1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        expect_vectors(z, self.features, "neural_spline")
        first, rest = self._split(z)
        x, log_derivatives = self.law.inverse(first, self.raw.expand(z.shape[0], -1, -1))
        return torch.cat([x, rest], 1), log_derivatives.sum(1)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        transformed = self.raw.shape[1]
        return x[:, :transformed], x[:, transformed:]
