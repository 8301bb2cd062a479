"""Normalisation of feature maps by statistics of the training set, or of each image."""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flows.fastflow.config import Pooled


class FeatureNormaliser(nn.Module):
    """Normalisation of feature maps without trained parameters.

    Trained parameters would let the loss fall without bound: it does not include their Jacobian, so the gain
    would shrink to 0. `channel` subtracts the training set's mean per channel and divides by its deviation;
    `layer` is the published per-sample layer norm over (C, H, W).

    Args:
        channels: channels of each scale.
        mode: "channel" or "layer".
        pooling: odd side of an average-pooling window applied first (1 = none). It adds the neighbourhood
            to each position, like PatchCore (Roth et al. 2022, arXiv 2106.08265, section 3.1).
        pooled: pooled scales: all, or only the last one (the coarsest, or a transformer's deepest), which
            draws small defects sharper (docs/research/model.md).

    Attributes:
        windows: side of each scale's window.
    """

    def __init__(
        self,
        channels: Sequence[int],
        mode: Literal["channel", "layer"],
        pooling: int,
        pooled: Pooled = "coarsest",
    ) -> None:
        super().__init__()
        self.mode = mode
        self.channels = tuple(channels)
        finer = 1 if pooled == "coarsest" else pooling
        self.windows = (*[finer] * (len(self.channels) - 1), pooling)
        for i, c in enumerate(self.channels):
            self.register_buffer(f"mean_{i}", torch.zeros(c))
            self.register_buffer(f"std_{i}", torch.ones(c))

    def fit(self, batches: Iterable[Sequence[Tensor]]) -> None:
        """Set the statistics of mode `channel` from batches of feature maps of the training set.

        Args:
            batches: per batch one (N, C_i, H_i, W_i) per scale; iterated once.

        Raises:
            ValueError: there are no batches, or a feature is not finite.
        """
        # Double precision: in single, a sum over a million positions loses small deviations.
        moments = [torch.zeros(3, c, dtype=torch.float64) for c in self.channels]
        for maps in batches:
            for total, raw, window in zip(moments, maps, self.windows, strict=True):
                x = _pool(raw, window).double()
                total[0] += x.numel() // x.shape[1]
                total[1] += x.sum((0, 2, 3)).cpu()
                total[2] += x.square().sum((0, 2, 3)).cpu()
        for i, (count, first, second) in enumerate(moments):
            mean = first / count
            std = (second / count - mean.square()).clamp_min(0).sqrt()
            if not (mean.isfinite().all() and std.isfinite().all()):
                raise ValueError(
                    f"scale {i}: the statistics of {int(count[0])} positions do not exist or are not finite"
                )
            self.get_buffer(f"mean_{i}").copy_(mean)
            # A dead channel has deviation 0 up to rounding; with 1 instead it stays near 0.
            dead = std <= 1e-6 * mean.abs().clamp_min(1)
            self.get_buffer(f"std_{i}").copy_(torch.where(dead, 1.0, std))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Normalise feature maps; shapes stay (N, C_i, H_i, W_i).

        Raises:
            ValueError: the maps have other numbers of channels.
        """
        channels = tuple(x.shape[1] for x in maps)
        if channels != self.channels:
            raise ValueError(f"expected feature maps of {self.channels} channels; got {channels}")
        return [self._normalise(i, _pool(x, self.windows[i])) for i, x in enumerate(maps)]

    def _normalise(self, i: int, x: Tensor) -> Tensor:
        if self.mode == "layer":
            return F.layer_norm(x, x.shape[1:])
        mean = self.get_buffer(f"mean_{i}").view(1, -1, 1, 1)
        std = self.get_buffer(f"std_{i}").view(1, -1, 1, 1)
        return (x - mean).div_(std)


def _pool(x: Tensor, window: int) -> Tensor:
    if window == 1:
        return x
    # The average excludes padding, which would make the border of every good part unusual.
    return F.avg_pool2d(x, window, stride=1, padding=window // 2, count_include_pad=False)
