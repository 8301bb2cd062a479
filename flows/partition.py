"""How a coupling divides its input."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from flows.transform import require_channels, require_images


class Partition(ABC):
    """Which part of the input conditions and passes unchanged, and which is transformed.

    Attributes:
        conditioning: channels of what the conditioner sees.
        transformed: channels of what is transformed.
    """

    conditioning: int
    transformed: int

    @abstractmethod
    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Divide x into the part that conditions and passes unchanged, and the part to transform."""

    @abstractmethod
    def join(self, conditioning: Tensor, transformed: Tensor) -> Tensor:
        """Undo `split`."""

    @abstractmethod
    def total(self, log_derivatives: Tensor) -> Tensor:
        """The sum, (N,), of log-derivatives shaped like the transformed part, over what is transformed."""


class Halves(Partition):
    """The first ceil(C/2) channels and the other floor(C/2).

    Args:
        channels: C >= 2.
        swapped: if True, the conditioner sees the second half and the first is transformed. Layers that
            alternate between the two need no permutation in between.

    Raises:
        ValueError: there are fewer than two channels.
    """

    def __init__(self, channels: int, *, swapped: bool = False) -> None:
        if channels < 2:
            raise ValueError(f"Halves expected at least 2 channels to divide; got {channels}")
        self.channels = channels
        self.swapped = swapped
        first = (channels + 1) // 2
        self.conditioning, self.transformed = (
            (channels - first, first) if swapped else (first, channels - first)
        )

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        require_channels(x, self.channels, "Halves")
        first = (self.channels + 1) // 2
        a, b = x[:, :first], x[:, first:]
        return (b, a) if self.swapped else (a, b)

    def join(self, conditioning: Tensor, transformed: Tensor) -> Tensor:
        parts = (transformed, conditioning) if self.swapped else (conditioning, transformed)
        return torch.cat(parts, 1)

    def total(self, log_derivatives: Tensor) -> Tensor:
        return log_derivatives.flatten(1).sum(1)


class Checkerboard(Partition):
    """Positions of even and of odd row + column, of images (Dinh et al. 2017, arXiv 1605.08803, figure 3).

    Both parts have the image's shape: the conditioner sees zeros where the other colour is.

    Args:
        channels: C.
        swapped: if True, the conditioner sees the odd positions and the even ones are transformed.
    """

    def __init__(self, channels: int, *, swapped: bool = False) -> None:
        self.channels = self.conditioning = self.transformed = channels
        self.swapped = swapped

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        require_images(x, self.channels, "Checkerboard")
        return torch.where(self._passes(x), x, 0.0), x

    def join(self, conditioning: Tensor, transformed: Tensor) -> Tensor:
        return torch.where(self._passes(conditioning), conditioning, transformed)

    def total(self, log_derivatives: Tensor) -> Tensor:
        return torch.where(self._passes(log_derivatives), 0.0, log_derivatives).flatten(1).sum(1)

    def _passes(self, x: Tensor) -> Tensor:
        """Where x passes unchanged, (H, W)."""
        rows, columns = (torch.arange(size, device=x.device) for size in x.shape[-2:])
        return (rows[:, None] + columns) % 2 == int(self.swapped)
