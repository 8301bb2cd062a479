"""FastFlow (Yu et al. 2021, arXiv 2111.07677): one two-dimensional flow per scale."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from flows import (
    Affine,
    ChannelAffine,
    Compose,
    ConvNet,
    Coupling,
    DepthwiseNet,
    Halves,
    Permutation,
    SoftClamp,
    Transform,
    standard_normal_log_prob,
)
from flows.fastflow.config import FlowConfig, Kernels
from flows.fastflow.model import alternating


class FastFlow(nn.Module):
    """One flow per scale, from normalised feature maps to standard normal latents and back.

    A step is an affine coupling over channel halves with a convolutional conditioner, a global affine per
    channel, and a mixing of the channels: a fixed random permutation, or nothing if the halves alternate.

    Args:
        channels: channels of each scale's feature map.
        config: architecture of the flows; without steps there are none, and only `FusedHead` can be used.
        seed: seed of the permutations; weights come from torch's global generator.
    """

    def __init__(self, channels: Sequence[int], config: FlowConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.config = config
        generator = torch.Generator().manual_seed(seed)
        flows = [_scale(c, config, generator) for c in self.channels] if config.steps else []
        self.scales = nn.ModuleList(flows)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Map feature maps, one (N, C_i, H_i, W_i) per scale, to latents.

        Returns:
            The latents, of the same shapes, and per scale the log-determinants, (N,).
        """
        return self._each("forward", features)

    def inverse(self, latents: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Map latents back to feature maps of the same shapes: the inverse of `forward`."""
        return self._each("inverse", latents)

    def nll(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Compute the mean negative log-likelihood per scale, each (), in nats per dimension.

        A dimension is one channel at one position, and the (1/2) log 2 pi is included, so values of all
        resolutions are comparable: independent standard normal features give 1.419. The value of a
        continuous density may be negative.
        """
        latents, log_dets = self(features)
        return [
            -(standard_normal_log_prob(z) + log_det).mean() / z[0].numel()
            for z, log_det in zip(latents, log_dets, strict=True)
        ]

    def _each(self, direction: str, inputs: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        if len(inputs) != len(self.scales):
            raise ValueError(
                f"FastFlow expected {len(self.scales)} scales with {self.channels} channels; "
                f"got {len(inputs)}"
            )
        outputs, log_dets = [], []
        for flow, x in zip(self.scales, inputs, strict=True):
            transform = cast(Compose, flow)
            if direction == "inverse":
                y, log_det = transform.inverse(x)
            elif alternating.is_alternating(transform):
                y, log_det = alternating.forward(transform, x)
            else:
                y, log_det = transform.forward(x)
            outputs.append(y)
            log_dets.append(log_det)
        return outputs, log_dets


def _scale(channels: int, config: FlowConfig, generator: torch.Generator) -> Compose:
    transforms: list[Transform] = []
    if config.permutation == "halves":
        # One shuffle first: the split into halves should not depend on the order of a backbone's channels.
        transforms.append(Permutation.random(channels, generator))
    for step in range(config.steps):
        swapped = config.permutation == "halves" and step % 2 == 1
        halves = Halves(channels, swapped=swapped)
        hidden = max(1, int(halves.conditioning * config.hidden_ratio))
        if config.hidden_limit is not None:
            hidden = min(hidden, config.hidden_limit)
        conditioner = _conditioner(
            config.kernels, step, (halves.conditioning, hidden, 2 * halves.transformed)
        )
        transforms += [
            Coupling(halves, conditioner, Affine(SoftClamp(config.clamp))),
            ChannelAffine(channels),
        ]
        if config.permutation == "index":
            transforms.append(Permutation.random(channels, generator))
    return Compose(transforms)


def _conditioner(kernels: Kernels, step: int, channels: tuple[int, int, int]) -> nn.Module:
    if kernels == "depthwise-5":
        return DepthwiseNet(channels, 5)
    return ConvNet(channels, 1 if kernels == "3-1" and step % 2 == 1 else 3)
