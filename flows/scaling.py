"""Per-channel scaling and shifting."""

import torch
from torch import Tensor, nn

from flows.transform import Transform, expect_channels


class ChannelAffine(Transform):
    """z = exp(s) x + t with one s and one t per channel; log det = H W sum(s) (H W = 1 for vectors).

    Starts as the identity (s = t = 0).

    Args:
        channels: C of images (N, C, H, W), D of vectors (N, D).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._like(x)
        return x * log_scale.exp() + shift, self._log_det(x)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._like(z)
        return (z - shift) * (-log_scale).exp(), -self._log_det(z)

    def _like(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The parameters shaped to broadcast over x: (1, C) or (1, C, 1, 1)."""
        expect_channels(x, len(self.log_scale), "ChannelAffine")
        shape = (1, -1) + (1,) * (x.ndim - 2)
        return self.log_scale.view(shape), self.shift.view(shape)

    def _log_det(self, x: Tensor) -> Tensor:
        positions = x.shape[2:].numel()  # 1 for vectors
        return (positions * self.log_scale.sum()).expand(x.shape[0])
