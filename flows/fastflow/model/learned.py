"""Learned part of a score: a linear function of an image's description, fitted to reviewed defects.

The flow knows only good parts. A few reviewed defects show in which direction the features of defects lie.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Larger energies do not weigh more, so the weights stay finite in float32.
MAX_ENERGY = 1e4


class LearnedPart(nn.Module):
    """Linear function of descriptions, added to the image score.

    Args:
        channels: channels of each scale.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("weights", torch.zeros(2 * sum(channels)))
        self.register_buffer("bias", torch.zeros(()))
        self.weights: Tensor
        self.bias: Tensor

    def forward(self, description: Tensor) -> Tensor:
        """Compute the parts of N images from `describe`: (N, 2 C + S) to (N,)."""
        used = description[:, : len(self.weights)]
        # Summed in double precision, and rounded so that the part of a score can be subtracted exactly.
        return (used.double() @ self.weights.double() + self.bias.double()).float()


def describe(features: Sequence[Tensor], flow: Sequence[Tensor], gaussian: Sequence[Tensor]) -> Tensor:
    """Describe N inputs by their features: on average, and where they are unusual.

    The weight of a position is (q e)^2, with the energies q of the flow and e of the Gaussian. The flow's
    alone would not do: it knows the images of its fit, and finds other positions unusual there than in new
    images.

    Args:
        features: normalised features per scale, (N, C_i, H_i, W_i).
        flow, gaussian: energies per scale, (N, H_i, W_i).

    Returns:
        (N, 2 C + S) for S scales of C channels together: each channel's mean, each channel's weighted mean,
        and the sum of the weights of each scale, by which tiles are merged.
    """
    means, weighted, totals = [], [], []
    for x, q, e in zip(features, flow, gaussian, strict=True):
        # The smallest positive number, so the sum is above 0.
        weights = (q.clamp_max(MAX_ENERGY) * e.clamp_max(MAX_ENERGY)).square() + torch.finfo(q.dtype).tiny
        total = weights.sum((1, 2))
        means.append(x.mean((2, 3)))
        weighted.append((x * weights[:, None]).sum((2, 3)) / total[:, None])
        totals.append(total)
    return torch.cat([*means, *weighted, torch.stack(totals, 1)], 1)


def merge_descriptions(tiles: Tensor, channels: Sequence[int]) -> Tensor:
    """Merge the descriptions of an image's tiles: (N, 2 C + S) to (1, 2 C + S).

    Args:
        tiles: from `describe`.
        channels: channels of each scale.
    """
    count = sum(channels)
    means, weighted, totals = tiles[:, :count], tiles[:, count : 2 * count], tiles[:, 2 * count :]
    shares = totals / totals.sum(0)
    by_channel = shares.repeat_interleave(torch.tensor(channels, device=tiles.device), 1)
    merged = (means.mean(0), (weighted * by_channel).sum(0), totals.sum(0))
    return torch.cat(merged)[None]
