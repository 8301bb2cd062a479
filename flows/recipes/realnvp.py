"""RealNVP: affine couplings over checkerboards and channels, on several scales."""

from collections.abc import Sequence
from dataclasses import dataclass

from flows.actnorm import ActNorm
from flows.clamp import LearnedClamp
from flows.compose import Compose, Inverse
from flows.conditioners import MLP, ResNet
from flows.coupling import Coupling
from flows.distributions import DiagonalNormal
from flows.flow import Flow
from flows.laws import Affine
from flows.multiscale import FactorOut
from flows.partition import Checkerboard, Halves
from flows.recipes.shared import (
    build_flow,
    require_counts,
    require_scales,
    require_two_channels,
    validate_event_shape,
)
from flows.reshape import Squeeze
from flows.transform import Transform


def real_nvp(
    event_shape: Sequence[int],
    *,
    scales: int = 2,
    couplings: int = 8,
    hidden: int = 64,
    blocks: int = 2,
    levels: int | None = None,
    alpha: float = 0.05,
    context: int = 0,
) -> Flow:
    """Build RealNVP (Dinh et al. 2017, arXiv 1605.08803).

    Images (sections 3.4 to 3.6): every scale but the last has three couplings over checkerboards, a squeeze,
    three couplings over channels, and finishes half of the channels. The last scale has four couplings over
    checkerboards. The log-scale is a tanh times a learned factor. The base has learned means and deviations.

    Vectors: an `ActNorm`, then couplings over alternating halves, each followed by an `ActNorm`. The networks
    start at random: from the identity, fits of densities with several modes get stuck more often.

    `ActNorm` stands where the paper has batch normalisation as a layer of the flow: it serves deep flows as
    well, and no density depends on the rest of its batch.

    >>> real_nvp((1, 8, 8), hidden=8, levels=17).sample(2).shape
    torch.Size([2, 1, 8, 8])

    Args:
        event_shape: (D,) with D >= 2, or (C, H, W) with a height and width divisible by 2^(scales - 1).
        scales: number of scales for images.
        couplings: number of couplings for vectors.
        hidden: width of the conditioners' hidden layers.
        blocks: residual blocks of an image's conditioner; hidden layers of a vector's.
        levels, alpha, context: see `flows.recipes`.
    """
    shape = validate_event_shape(event_shape, "real_nvp")
    if len(shape) == 1:
        require_counts("real_nvp", couplings=couplings)
        require_two_channels(shape[0], "real_nvp")
        steps = _vector_steps(shape[0], couplings, (hidden,) * blocks, context)
        return build_flow(steps, shape, levels, alpha=alpha)
    require_scales(shape, scales, scales - 1, "real_nvp")
    steps = _ImageSteps(hidden, blocks, context).build(shape[0], scales)
    return build_flow(steps, shape, levels, alpha=alpha, base=DiagonalNormal(shape))


@dataclass(frozen=True)
class _ImageSteps:
    hidden: int
    blocks: int
    context: int

    def build(self, channels: int, scales: int) -> list[Transform]:
        """Build the steps of all scales, for this number of channels and scales."""
        last = scales == 1
        boards = [Checkerboard(channels, swapped=i % 2 == 1) for i in range(4 if last else 3)]
        steps: list[Transform] = [self._couplings(boards)]
        if last:
            return steps
        inside = 4 * channels
        halves = [Halves(inside, swapped=i % 2 == 1) for i in range(3)]
        couplings = self._couplings(halves)
        below = FactorOut(inside, Compose(self.build(inside // 2, scales - 1)))
        return [*steps, Squeeze(channels), couplings, below, Inverse(Squeeze(channels))]

    def _couplings(self, partitions: Sequence[Checkerboard | Halves]) -> Transform:
        steps: list[Transform] = []
        for partition in partitions:
            sizes = (partition.conditioning, self.hidden, 2 * partition.transformed)
            network = ResNet(sizes, self.blocks, context=self.context)
            law = Affine(LearnedClamp(partition.transformed))
            steps += [Coupling(partition, network, law), ActNorm(partition.channels)]
        return Compose(steps)


def _vector_steps(features: int, couplings: int, hidden: tuple[int, ...], context: int) -> list[Transform]:
    steps: list[Transform] = [ActNorm(features)]
    for i in range(couplings):
        halves = Halves(features, swapped=i % 2 == 1)
        network = MLP(halves.conditioning, hidden, 2 * halves.transformed, context=context, start=1.0)
        law = Affine(LearnedClamp(halves.transformed))
        steps += [Coupling(halves, network, law), ActNorm(features)]
    return steps
