"""The one interface of the library: an invertible map that knows its log-determinants."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


class Transform(nn.Module, ABC):
    """An invertible map between data x and latents z, batched over the first dimension.

    Vectors have shape (N, D), images (N, C, H, W). Both directions return the result together with the
    log-determinant of the direction taken, of shape (N,) and of the input's dtype and device:

        forward:  z = f(x),      log |det df/dx|
        inverse:  x = f^-1(z),   log |det df^-1/dz|  =  -log |det df/dx|  at that x

    Input and parameters have one dtype. Under autocast both results keep it. What is rounded are
    conditioners, which both directions compute alike: of one layer they stay each other's inverse. In a stack
    a conditioner's input comes back with an error in its last digit, and may be rounded to another number of
    bfloat16 for it. So a few rows of a hundred at most come back to bfloat16's digits only, about 1e-3.

    A transform may depend on a context, one row for each row of the input: (N, K), or maps (N, K, H, W).
    The transform of each row is invertible whatever its context is; those that have no use for one pass it
    over. Input of a wrong shape raises ValueError and says what was expected. So do integers, but where they
    are moved alone.

    Flows call `forward` and `inverse` by name, two directions of equal rank: hooks of `nn.Module` run for
    neither.
    """

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map data to latents. Returns (z, log_det) with log_det of shape (N,)."""

    @abstractmethod
    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map latents to data. Returns (x, log_det of the inverse), the latter of shape (N,)."""


def without_autocast(device: str) -> AbstractContextManager[object]:
    """Full precision within it, for what the inverse would not undo if it were rounded."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def require_positive(channels: int, owner: str) -> None:
    """Raise ValueError unless there is a channel, or feature, at least."""
    if channels < 1:
        raise ValueError(f"{owner} expected at least 1 channel or feature; got {channels}")


def channels_log_det(log_scale: Tensor, x: Tensor) -> Tensor:
    """H W sum(s), (N,), of what scales channels, or mixtures of them, by exp(s) at every position of x."""
    # Not expanded: who adds to it in place must not meet one number under all rows.
    return (x.shape[2:].numel() * log_scale.sum()).repeat(x.shape[0])


def require_floating(x: Tensor, owner: str) -> None:
    """Raise ValueError unless x holds floating numbers: in the dtype of integers results would be cut."""
    if not x.is_floating_point():
        kind = str(x.dtype).removeprefix("torch.")
        raise ValueError(f"{owner} expected floating numbers; got {kind}, of which x.float() makes some")


def require_channels(x: Tensor, channels: int, owner: str) -> None:
    """Raise ValueError unless x is (N, channels) or (N, channels, H, W)."""
    if x.ndim not in (2, 4) or x.shape[1] != channels:
        raise ValueError(
            f"{owner} expected shape (N, {channels}) or (N, {channels}, H, W); got {tuple(x.shape)}"
        )


def require_vectors(x: Tensor, features: int, owner: str) -> None:
    """Raise ValueError unless x is (N, features), of floating numbers."""
    if x.ndim != 2 or x.shape[1] != features:
        raise ValueError(f"{owner} expected shape (N, {features}); got {tuple(x.shape)}")
    require_floating(x, owner)


def require_images(x: Tensor, channels: int, owner: str) -> None:
    """Raise ValueError unless x is (N, channels, H, W)."""
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(f"{owner} expected shape (N, {channels}, H, W); got {tuple(x.shape)}")
