"""Partitions of a coupling's input into a conditioning and a transformed part."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from flows.transform import require_channels, require_images


class Partition(ABC):
    """Division of the input into a conditioning part, left unchanged, and a transformed part.

    Attributes:
        conditioning: number of channels of the conditioning part.
        transformed: number of channels of the transformed part.
    """

    conditioning: int
    transformed: int

    @abstractmethod
    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Divide x into the conditioning and the transformed part."""

    @abstractmethod
    def join(self, conditioning: Tensor, transformed: Tensor) -> Tensor:
        """Undo `split`."""

    @abstractmethod
    def total(self, log_derivatives: Tensor) -> Tensor:
        """Sum the log-derivatives of the transformed part over its elements: (N,)."""


class Halves(Partition):
    """Halves of the channels: the first ceil(C/2) and the last floor(C/2).

    >>> conditioning, transformed = Halves(3).split(torch.tensor([[1, 2, 3]]))
    >>> conditioning.tolist(), transformed.tolist()
    ([[1, 2]], [[3]])

    Args:
        channels: C >= 2.
        swapped: if True, the second half conditions the first. Layers that alternate between both need no
            permutation between them.

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
    """Checkerboard of an image's positions: even row + column conditions odd.

    Dinh et al. 2017, RealNVP, arXiv 1605.08803, figure 3. Both parts have the shape of the image; the
    conditioner sees zeros at the transformed positions.

    >>> Checkerboard(1).split(torch.ones(1, 1, 2, 2))[0].tolist()
    [[[[1.0, 0.0], [0.0, 1.0]]]]

    Args:
        channels: C.
        swapped: if True, odd positions condition even ones.
    """

    def __init__(self, channels: int, *, swapped: bool = False) -> None:
        self.channels = self.conditioning = self.transformed = channels
        self.swapped = swapped

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        require_images(x, self.channels, "Checkerboard")
        return torch.where(self._unchanged(x), x, 0.0), x

    def join(self, conditioning: Tensor, transformed: Tensor) -> Tensor:
        return torch.where(self._unchanged(conditioning), conditioning, transformed)

    def total(self, log_derivatives: Tensor) -> Tensor:
        return torch.where(self._unchanged(log_derivatives), 0.0, log_derivatives).flatten(1).sum(1)

    def _unchanged(self, x: Tensor) -> Tensor:
        """Return the mask of the unchanged positions, (H, W)."""
        rows, columns = (torch.arange(size, device=x.device) for size in x.shape[-2:])
        return (rows[:, None] + columns) % 2 == int(self.swapped)
