"""The models of normflows (1.7.3) that our recipes are measured against on pictures.

Each is built as its documentation builds it, and becomes the base of a `Flow` whose transform is the same
preprocessing as ours: so the same fit, the same noise and the same counting of bits serve both.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

import normflows as nf
import torch
from torch import Tensor, nn

from bench.flows.models import parameters
from flows import Distribution


class NormflowsDensity(Distribution):
    """A density of normflows as a base distribution.

    Args:
        event_shape: of what the model takes.
        model: `NormalizingFlow` or `MultiscaleFlow`, not conditional.
    """

    def __init__(self, event_shape: Sequence[int], model: nn.Module) -> None:
        super().__init__(event_shape)
        self.model: Any = model

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:  # noqa: ARG002
        self._check(z)
        log_prob: Tensor = (
            self.model.log_prob(z, None)
            if isinstance(self.model, nf.MultiscaleFlow)
            else self.model.log_prob(z)
        )
        return log_prob

    def sample(
        self,
        n: int,
        *,
        context: Tensor | None = None,  # noqa: ARG002
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        if generator is not None:
            raise ValueError("normflows draws from torch's own generator: seed that one")
        bases = self.model.q0 if isinstance(self.model, nf.MultiscaleFlow) else [self.model.q0]
        for base in bases:
            base.temperature = temperature
        try:
            samples: Tensor = self.model.sample(n)[0]
        finally:
            for base in bases:
                base.temperature = None
        return samples


def nf_nice(shape: tuple[int, int, int], hidden: int, *, couplings: int, layers: int) -> NormflowsDensity:
    """NICE over vectors, as the docstring of `MaskedAffineFlow` says: shifts alone; then one scaling."""
    features = shape[0] * shape[1] * shape[2]
    mask = torch.arange(features) % 2
    flows: list[nn.Module] = [nf.flows.AffineConstFlow((features,), shift=False)]
    for i in range(couplings):
        shift = nf.nets.MLP([features, *[hidden] * layers, features], init_zeros=True)
        flows.append(nf.flows.MaskedAffineFlow((mask if i % 2 else 1 - mask).float(), t=shift, s=None))
    flows.append(nf.flows.ActNorm((features,)))
    base = nf.distributions.DiagGaussian(features)
    return NormflowsDensity((features,), nf.NormalizingFlow(base, flows))


def nf_real_nvp(shape: tuple[int, int, int], hidden: int, *, scales: int) -> NormflowsDensity:
    """RealNVP on several scales: checkerboards by `MaskedAffineFlow`, channels by `AffineCouplingBlock`.

    From data to latents each coupling is followed by its `ActNorm`, as in ours; the other way round
    normflows' `MultiscaleFlow.log_prob` fails, as it adds in place to the scalar that `ActNorm` returns.
    """

    def network(in_: int, out: int) -> nn.Module:
        made: nn.Module = nf.nets.ConvNet2d([in_, hidden, hidden, out], [3, 1, 3], init_zeros=True)
        return made

    def boards(channels: int, height: int, width: int, count: int) -> list[nn.Module]:
        rows, columns = torch.arange(height)[:, None], torch.arange(width)
        board = ((rows + columns) % 2).float().expand(channels, height, width).contiguous()
        made: list[nn.Module] = []
        for i in range(count):
            # The scale is bounded, as in the paper: without a bound exp overflows on these digits.
            scale = nn.Sequential(network(channels, channels), nn.Tanh())
            mask = board if i % 2 else 1 - board
            made.append(nf.flows.ActNorm((channels, 1, 1)))
            made.append(nf.flows.MaskedAffineFlow(mask, t=network(channels, channels), s=scale))
        return made

    def channelwise(channels: int) -> list[nn.Module]:
        made: list[nn.Module] = []
        for i in range(3):
            mode = "channel" if i % 2 else "channel_inv"
            made.append(nf.flows.ActNorm((channels, 1, 1)))
            made.append(
                nf.flows.AffineCouplingBlock(
                    network(channels // 2, channels), scale_map="sigmoid", split_mode=mode
                )
            )
        return made

    # From the smallest pictures to the largest, and in each level from latents to data.
    levels = list(range(scales - 1, -1, -1))
    flows, bases = [], []
    for level in levels:
        channels, height, width = shape[0] * 2**level, shape[1] >> level, shape[2] >> level
        if level == scales - 1:
            flows.append(boards(channels, height, width, 4))
            bases.append(nf.distributions.DiagGaussian((channels, height, width)))
        else:
            inner = [*channelwise(4 * channels), nf.flows.Squeeze()]
            flows.append([*inner, *boards(channels, height, width, 3)])
            bases.append(nf.distributions.DiagGaussian((2 * channels, height // 2, width // 2)))
    merges = [nf.flows.Merge() for _ in levels[1:]]
    return NormflowsDensity(shape, nf.MultiscaleFlow(bases, flows, merges, class_cond=False))


def nf_glow(shape: tuple[int, int, int], hidden: int, *, scales: int, steps: int) -> NormflowsDensity:
    """Glow, as normflows' own example builds it (its documentation, "Image generation with Glow")."""
    channels, height, width = shape
    flows, bases = [], []
    for i in range(scales):
        size = 2 ** (scales - i)
        inside = channels * 2 ** (scales + 1 - i)
        blocks = [nf.flows.GlowBlock(inside, hidden, split_mode="channel", scale=True) for _ in range(steps)]
        flows.append([*blocks, nf.flows.Squeeze()])
        left = inside if i == 0 else inside // 2
        bases.append(nf.distributions.DiagGaussian((left, height // size, width // size)))
    merges = [nf.flows.Merge() for _ in range(scales - 1)]
    return NormflowsDensity(shape, nf.MultiscaleFlow(bases, flows, merges, class_cond=False))


def nf_spline(shape: tuple[int, int, int], hidden: int, *, steps: int) -> NormflowsDensity:
    """Neural spline flow with couplings over vectors: normflows has none for pictures."""
    features = shape[0] * shape[1] * shape[2]
    flows: list[nn.Module] = []
    for i in range(steps):
        flows.append(
            nf.flows.CoupledRationalQuadraticSpline(
                features, 1, hidden, num_bins=8, tail_bound=4.0, reverse_mask=i % 2 == 1
            )
        )
        flows += [nf.flows.LULinearPermute(features), nf.flows.ActNorm((features,))]
    base = nf.distributions.DiagGaussian(features)
    return NormflowsDensity((features,), nf.NormalizingFlow(base, flows))


def width_as_large_as(make: Callable[[int], NormflowsDensity], wanted: int, most: int) -> int:
    """The least hidden width, 1 ... `most`, whose model has at least so many parameters.

    Raises:
        ValueError: even the widest has fewer.
    """
    fewer = bisect_left(range(1, most + 1), wanted, key=lambda width: parameters(make(width)))
    if fewer == most:
        raise ValueError(
            f"a hidden width of {most} gives {parameters(make(most))} parameters, fewer than {wanted}"
        )
    return fewer + 1
