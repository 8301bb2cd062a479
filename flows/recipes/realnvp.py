"""RealNVP: affine couplings over checkerboards and channels, on several scales."""

from collections.abc import Sequence

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
from flows.recipes.events import expect_counts, expect_event, expect_halves, flow_of
from flows.recipes.levels import expect_scales
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
    recompute: bool = False,
) -> Flow:
    """RealNVP (Dinh et al. 2017, arXiv 1605.08803).

    Images, as in sections 3.4 to 3.6: on each scale three couplings over checkerboards, a squeeze, three
    couplings over channels, and half of the channels finished; on the last scale four couplings over
    checkerboards. The log-scale is a tanh times a learned factor. Where the paper has batch normalisation,
    also as a layer of the flow, there is `ActNorm`: it does the same for depth, and no density depends on the
    rest of its batch. The base has learned means and deviations.

    Vectors: couplings over halves that take turns, each followed by `ActNorm`, as in the paper by batch
    normalisation. Another one comes first: no network sees the unit of the data. All networks start at
    random: from the identity, where the networks of `flows` start on their own, fits of densities with
    several modes get stuck more often.

    >>> real_nvp((1, 8, 8), hidden=8, levels=17).sample(2).shape
    torch.Size([2, 1, 8, 8])

    Args:
        event_shape: (D,), D >= 2, or (C, H, W) whose height and width can be halved scales - 1 times.
        scales: of images.
        couplings: of vectors.
        hidden: channels, or features, of the conditioners' hidden layers.
        blocks: residual blocks of the conditioners of images; hidden layers of those of vectors.
        levels: L of integer data 0 ... L - 1, dequantised and brought to the real line by a logit.
        alpha: of that logit; see `Logit`.
        context: K of a context (N, K), or 0; maps (N, K, H, W) would not fit what is squeezed.
        recompute: see `Compose`.
    """
    shape = expect_event(event_shape, "real_nvp")
    if len(shape) == 1:
        expect_counts("real_nvp", couplings=couplings)
        expect_halves(shape[0], "real_nvp")
        steps = _vector_steps(shape[0], couplings, (hidden,) * blocks, context)
        return flow_of(steps, shape, levels, alpha=alpha, recompute=recompute)
    expect_scales(shape, scales, scales - 1, "real_nvp")

    def coupling(partition: Checkerboard | Halves) -> list[Transform]:
        outputs = 2 * partition.transformed
        network = ResNet((partition.conditioning, hidden, outputs), blocks, context=context)
        law = Affine(LearnedClamp(partition.transformed))
        channels = partition.channels
        return [Coupling(partition, network, law), ActNorm(channels)]

    def scale(channels: int, left: int) -> list[Transform]:
        count = 3 if left > 1 else 4
        boards = [s for i in range(count) for s in coupling(Checkerboard(channels, swapped=i % 2 == 1))]
        made: list[Transform] = [Compose(boards, recompute=recompute)]
        if left == 1:
            return made
        inside = 4 * channels
        halves = [s for i in range(3) for s in coupling(Halves(inside, swapped=i % 2 == 1))]
        below = FactorOut(inside, Compose(scale(inside // 2, left - 1)))
        return [
            *made,
            Squeeze(channels),
            Compose(halves, recompute=recompute),
            below,
            Inverse(Squeeze(channels)),
        ]

    return flow_of(scale(shape[0], scales), shape, levels, alpha=alpha, base=DiagonalNormal(shape))


def _vector_steps(features: int, couplings: int, hidden: tuple[int, ...], context: int) -> list[Transform]:
    steps: list[Transform] = [ActNorm(features)]
    for i in range(couplings):
        halves = Halves(features, swapped=i % 2 == 1)
        network = MLP(halves.conditioning, hidden, 2 * halves.transformed, context=context, start=1.0)
        law = Affine(LearnedClamp(halves.transformed))
        steps += [Coupling(halves, network, law), ActNorm(features)]
    return steps
