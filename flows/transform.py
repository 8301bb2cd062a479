"""Interface of every transform: an invertible map with its log-determinants."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


class Transform(nn.Module, ABC):
    """Invertible map between data x and latents z, batched over the first dimension.

    Vectors have shape (N, D), images (N, C, H, W). Both directions return the result and the log-determinant
    of that direction, of shape (N,), in the dtype and on the device of the input:

        forward:  z = f(x),      log |det df/dx|
        inverse:  x = f^-1(z),   log |det df^-1/dz|  =  -log |det df/dx|  at that x

    A transform may depend on a context with one row per row of the input: (N, K), or maps (N, K, H, W). It is
    invertible for every context. Transforms without a use for a context ignore it.

    Input of a wrong shape raises ValueError with the expected shape. Integer input raises ValueError too,
    except where elements are only moved.

    Input and parameters have one dtype. Autocast rounds conditioners only, in both directions alike; results
    keep the dtype. In a stack, a few rows per hundred come back with errors of about 1e-3: an error in the
    last digit may make a conditioner's input round to another bfloat16 number.

    Flows call `forward` and `inverse` by name, so hooks of `nn.Module` do not run.

    >>> class Asinh(Transform):
    ...     def forward(self, x, context=None):
    ...         return x.asinh(), -0.5 * x.square().log1p().sum(1)
    ...
    ...     def inverse(self, z, context=None):
    ...         return z.sinh(), z.cosh().log().sum(1)
    >>> z, log_det = Asinh().forward(torch.zeros(2, 3))
    >>> log_det.shape
    torch.Size([2])
    """

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map data to latents; return z and its log-determinant, (N,)."""

    @abstractmethod
    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map latents to data; return x and the log-determinant of the inverse, (N,)."""


def without_autocast(device: str) -> AbstractContextManager[object]:
    """Disable autocast, for values that the inverse must reproduce exactly."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def require_positive(channels: int, owner: str) -> None:
    """Raise ValueError unless there is at least one channel, or feature."""
    if channels < 1:
        raise ValueError(f"{owner} expected at least 1 channel or feature; got {channels}")


def channels_log_det(log_scale: Tensor, x: Tensor) -> Tensor:
    """Compute H W sum(s), (N,), for a scaling by exp(s) at every position of x."""
    # Repeated, not expanded: rows must not share memory, in case a caller adds in place.
    return (x.shape[2:].numel() * log_scale.sum()).repeat(x.shape[0])


def require_floating(x: Tensor, owner: str) -> None:
    """Raise ValueError unless x is floating-point: an integer dtype would truncate results."""
    if not x.is_floating_point():
        kind = str(x.dtype).removeprefix("torch.")
        raise ValueError(f"{owner} expected floating-point numbers; got {kind}; convert with x.float()")


def require_channels(x: Tensor, channels: int, owner: str) -> None:
    """Raise ValueError unless x is (N, channels) or (N, channels, H, W)."""
    if x.ndim not in (2, 4) or x.shape[1] != channels:
        raise ValueError(
            f"{owner} expected shape (N, {channels}) or (N, {channels}, H, W); got {tuple(x.shape)}"
        )


def require_vectors(x: Tensor, features: int, owner: str) -> None:
    """Raise ValueError unless x is (N, features) and floating-point."""
    if x.ndim != 2 or x.shape[1] != features:
        raise ValueError(f"{owner} expected shape (N, {features}); got {tuple(x.shape)}")
    require_floating(x, owner)


def require_images(x: Tensor, channels: int, owner: str) -> None:
    """Raise ValueError unless x is (N, channels, H, W)."""
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(f"{owner} expected shape (N, {channels}, H, W); got {tuple(x.shape)}")
