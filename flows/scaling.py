"""Scaling and shift per channel."""

import torch
from torch import Tensor, nn

from flows.transform import Transform, channels_log_det, require_channels, require_floating, require_positive


class _PerChannel(Transform):
    """Base of transforms that scale each channel by exp(s), with log det = H W sum(s)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        require_positive(channels, type(self).__name__)
        self.log_scale = nn.Parameter(torch.zeros(channels))

    def _broadcast(self, parameter: Tensor, x: Tensor) -> Tensor:
        """Reshape a parameter, (C,), to broadcast over x: (1, C) or (1, C, 1, 1)."""
        require_channels(x, len(self.log_scale), type(self).__name__)
        require_floating(x, type(self).__name__)
        return parameter.view((1, -1) + (1,) * (x.ndim - 2))

    def _log_det(self, x: Tensor) -> Tensor:
        return channels_log_det(self.log_scale, x)


class ChannelAffine(_PerChannel):
    """Affine map z = exp(s) x + t with one s and one t per channel.

        log |det df/dx| = H W sum(s)        H W = 1 for vectors

    It starts as the identity, s = t = 0.

    >>> layer = ChannelAffine(2)
    >>> _ = torch.nn.init.constant_(layer.log_scale, 1.0)
    >>> layer.forward(torch.zeros(1, 2, 3, 4))[1].item()  # 2 channels x 12 positions
    24.0

    Args:
        channels: C of images (N, C, H, W), D of vectors (N, D).
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._like(x)
        return torch.addcmul(shift, x, log_scale.exp()), self._log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._like(z)
        return (z - shift) * (-log_scale).exp(), -self._log_det(z)

    def _like(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-scale and shift, shaped to broadcast over x."""
        return self._broadcast(self.log_scale, x), self._broadcast(self.shift, x)


class Scaling(_PerChannel):
    """Scaling z = exp(s) x with one s per channel.

        log |det df/dx| = H W sum(s)        H W = 1 for vectors

    Dinh et al. 2015, NICE, arXiv 1410.8516, section 3.3. Additive couplings preserve volume, so after them
    this layer alone sets the width of each dimension: a large s means that the data hardly vary along it.

    >>> Scaling(3).forward(torch.ones(2, 3))[1].tolist()  # starts as the identity
    [0.0, 0.0]

    Args:
        channels: C of images (N, C, H, W), D of vectors (N, D).
    """

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x * self._broadcast(self.log_scale, x).exp(), self._log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z * (-self._broadcast(self.log_scale, z)).exp(), -self._log_det(z)
