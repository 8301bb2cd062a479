"""How a coupling divides its input."""

import torch
from torch import Tensor

from flows.transform import expect_channels


class Halves:
    """The first ceil(C/2) channels and the other floor(C/2).

    Args:
        channels: C >= 2.
        swapped: if True, the conditioner sees the second half and the first is transformed. Layers that
            alternate between the two need no permutation in between.
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
        """Divide x into the part that conditions and passes unchanged, and the part to transform."""
        expect_channels(x, self.channels, "Halves")
        first = (self.channels + 1) // 2
        a, b = x[:, :first], x[:, first:]
        return (b, a) if self.swapped else (a, b)

    def join(self, conditioning: Tensor, transformed: Tensor) -> Tensor:
        """Undo `split`."""
        parts = (transformed, conditioning) if self.swapped else (conditioning, transformed)
        return torch.cat(parts, 1)
