"""Rearrangements of the elements, with log det = 0."""

import math
from collections.abc import Sequence

from torch import Tensor

from flows.transform import Transform, require_images, require_positive


class Squeeze(Transform):
    """Squeeze of (N, C, H, W) to (N, 4C, H/2, W/2): 2 x 2 positions become four channels.

    Dinh et al. 2017, RealNVP, arXiv 1605.08803, section 3.6. Couplings over the new channels reach across
    positions.

    >>> import torch
    >>> z, _ = Squeeze(1).forward(torch.arange(4.0).view(1, 1, 2, 2))
    >>> z.flatten().tolist(), z.shape
    ([0.0, 1.0, 2.0, 3.0], torch.Size([1, 4, 1, 1]))

    Args:
        channels: C of the input.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        require_positive(channels, "Squeeze")
        self.channels = channels

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_images(x, self.channels, "Squeeze")
        n, c, h, w = x.shape
        if h % 2 or w % 2:
            raise ValueError(f"Squeeze expected an even height and width; got {tuple(x.shape)}")
        blocks = x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4)
        return blocks.reshape(n, 4 * c, h // 2, w // 2), x.new_zeros(n)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_images(z, 4 * self.channels, "the inverse of Squeeze")
        n, c, h, w = z.shape
        blocks = z.reshape(n, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3)
        return blocks.reshape(n, c // 4, 2 * h, 2 * w), z.new_zeros(n)


class Flatten(Transform):
    """Flattening of (N, *event_shape) to (N, D), for flows over vectors.

    >>> import torch
    >>> Flatten((1, 8, 8)).forward(torch.zeros(5, 1, 8, 8))[0].shape
    torch.Size([5, 64])

    Args:
        event_shape: shape of one event, such as (C, H, W).
    """

    def __init__(self, event_shape: Sequence[int]) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)
        self.features = math.prod(self.event_shape)
        require_positive(self.features, "Flatten")

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if tuple(x.shape[1:]) != self.event_shape:
            expected = ", ".join(map(str, self.event_shape))
            raise ValueError(f"Flatten expected shape (N, {expected}); got {tuple(x.shape)}")
        return x.flatten(1), x.new_zeros(x.shape[0])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if z.ndim != 2 or z.shape[1] != self.features:
            raise ValueError(
                f"the inverse of Flatten expected shape (N, {self.features}); got {tuple(z.shape)}"
            )
        return z.reshape(z.shape[0], *self.event_shape), z.new_zeros(z.shape[0])
