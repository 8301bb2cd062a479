"""Multi-scale architecture: finish some channels early."""

import torch
from torch import Tensor

from flows.transform import Transform, require_channels


class FactorOut(Transform):
    """Factor out half of the channels; only the other half is transformed further.

        z_a = f(x_a),  z_b = x_b
        log |det dz/dx| = log |det df/dx_a|

    Dinh et al. 2017, RealNVP, arXiv 1605.08803, section 3.6, eq. 13-16. Half of the dimensions are finished
    at each scale, so deep scales cost little and early scales get a gradient of their own. The latents keep
    the shape of the input, so a multi-scale flow is an ordinary transform:

        level = Compose([Squeeze(c), *steps, prior, FactorOut(4 * c, level_below), Inverse(Squeeze(c))])

    Here `prior` is the learned split prior of Glow's code, an affine `Coupling` that makes the second half
    (x_b - mu(x_a)) / sigma(x_a). RealNVP has none.

    >>> from flows import ChannelAffine
    >>> inner = ChannelAffine(2)
    >>> _ = torch.nn.init.constant_(inner.shift, 1.0)
    >>> FactorOut(4, inner).forward(torch.zeros(1, 4))[0].tolist()
    [[1.0, 1.0, 0.0, 0.0]]

    Args:
        channels: C >= 2 of the input.
        transform: maps the first ceil(C/2) channels and keeps their shape.

    Raises:
        ValueError: there are fewer than two channels.
    """

    def __init__(self, channels: int, transform: Transform) -> None:
        super().__init__()
        if channels < 2:
            raise ValueError(f"FactorOut expected at least 2 channels to divide; got {channels}")
        self.channels = channels
        self.transform = transform

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x_a, x_b = self._split(x)
        z_a, log_det = self.transform.forward(x_a, context)
        return torch.cat([z_a, x_b], 1), log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z_a, z_b = self._split(z)
        x_a, log_det = self.transform.inverse(z_a, context)
        return torch.cat([x_a, z_b], 1), log_det

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        require_channels(x, self.channels, "FactorOut")
        kept = (self.channels + 1) // 2
        return x[:, :kept], x[:, kept:]
