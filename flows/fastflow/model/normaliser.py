"""Feature maps brought to a common scale by statistics of the training set, or of each picture."""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flows.fastflow.config import Pooled


class FeatureNormaliser(nn.Module):
    """Brings feature maps to a common scale without trained parameters.

    Trained normalisation would be a trap: the flow's loss does not count its Jacobian, so its gain would
    shrink to 0 and the loss fall without bound. `channel` subtracts the training set's mean per channel and
    divides by its deviation; `layer` is the published per-sample layer norm over (C, H, W).

    Args:
        channels: channels of each scale.
        mode: "channel" or "layer".
        pooling: odd side of an average-pooling window applied first (1 = none); gives each position its
            neighbourhood, as PatchCore does (Roth et al. 2022, arXiv 2106.08265, section 3.1).
        pooled: which scales are pooled: all, or the coarsest alone, the last one (of a transformer's, which
            are of one size, the deepest); small defects are drawn sharper then (docs/research/model.md).

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
            batches: per batch one (N, C_i, H_i, W_i) per scale; gone through once.

        Raises:
            ValueError: there are no batches, or a feature is not finite.
        """
        # In double precision: a sum over a million positions loses the small deviations in single.
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
                raise ValueError(f"scale {i}: no statistics of {int(count[0])} positions, or not finite ones")
            self.get_buffer(f"mean_{i}").copy_(mean)
            # A dead channel has deviation 0, or what rounding makes of its constant: it then stays near 0.
            dead = std <= 1e-6 * mean.abs().clamp_min(1)
            self.get_buffer(f"std_{i}").copy_(torch.where(dead, 1.0, std))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Normalise feature maps; shapes stay (N, C_i, H_i, W_i).

        Raises:
            ValueError: there are other channels.
        """
        found = tuple(x.shape[1] for x in maps)
        if found != self.channels:
            raise ValueError(f"expected feature maps of {self.channels} channels; got {found}")
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
    # Padding is left out of the average, or the border of every good part would look odd.
    return F.avg_pool2d(x, window, stride=1, padding=window // 2, count_include_pad=False)
