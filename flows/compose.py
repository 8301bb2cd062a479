"""Composition of transforms."""

from collections.abc import Iterable
from typing import cast

from torch import Tensor, nn

from flows.transform import Transform


class Compose(Transform):
    """f = f_K o ... o f_1, applied left to right in `forward` and right to left in `inverse`.

    The log-determinants add (chain rule): log |det df/dx| = sum_k log |det df_k/dx_k|, where x_k is what
    reaches step k.

    Args:
        transforms: at least one transform, in the order of the data-to-latent direction.

    Raises:
        ValueError: if no transform is given.
    """

    def __init__(self, transforms: Iterable[Transform]) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(transforms)
        if not self.transforms:
            raise ValueError("Compose expected at least one transform; got none")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(x.shape[0])
        for module in self.transforms:
            x, log_det = cast(Transform, module).forward(x)
            total = total + log_det
        return x, total

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        total = z.new_zeros(z.shape[0])
        for module in reversed(self.transforms):
            z, log_det = cast(Transform, module).inverse(z)
            total = total + log_det
        return z, total
