"""Base distributions of the latents."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, I) = -1/2 |z|^2 - D/2 log(2 pi), summed over all but the first dimension.

    Args:
        z: (N, ...), D values per row.

    Returns:
        (N,), in nats.
    """
    dimensions = z.shape[1:].numel()
    return -0.5 * z.square().flatten(1).sum(1) - 0.5 * dimensions * math.log(2 * math.pi)


class StandardNormal(nn.Module):
    """The standard normal N(0, I) over events of a given shape.

    Args:
        event_shape: shape of one event, (D,) or (C, H, W).
    """

    def __init__(self, event_shape: Sequence[int]) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)
        # Samples take this buffer's dtype and device, so that they follow `Flow.to(...)`.
        self.register_buffer("origin", torch.zeros(()), persistent=False)
        self.origin: Tensor

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats, (N,), of z with shape (N, *event_shape)."""
        if tuple(z.shape[1:]) != self.event_shape:
            raise ValueError(
                f"StandardNormal expected shape (N, {', '.join(map(str, self.event_shape))}); "
                f"got {tuple(z.shape)}"
            )
        return standard_normal_log_prob(z)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n events, (n, *event_shape)."""
        return torch.randn(
            (n, *self.event_shape),
            dtype=self.origin.dtype,
            device=self.origin.device,
            generator=generator,
        )
