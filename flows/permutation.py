"""Reordering of channels."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from flows.transform import Transform, require_channels


class Permutation(Transform):
    """z[:, i] = x[:, index[i]]: channels reordered by an index, log det = 0.

    Kept as an index, never as a C x C matrix: gathering costs C reads per position, a matrix C^2
    multiplications.

    >>> Permutation([2, 0, 1]).forward(torch.tensor([[10, 20, 30]]))[0].tolist()
    [[30, 10, 20]]

    Args:
        index: a permutation of 0..C-1; C is the number of channels (images) or dimensions (vectors).

    Raises:
        ValueError: if index is not such a permutation, or what `load_state_dict` brings is none.
    """

    def __init__(self, index: Sequence[int] | Tensor) -> None:
        super().__init__()
        # On the CPU first, whatever the default device is: its values are checked here.
        index = torch.as_tensor(index, device="cpu")
        require_permutation(index, "Permutation")
        self.register_buffer("index", index.to(torch.get_default_device(), torch.int64))
        self.index: Tensor
        self.register_load_state_dict_post_hook(_check_loaded)  # type: ignore[no-untyped-call]

    @classmethod
    def random(cls, channels: int, generator: torch.Generator | None = None) -> "Permutation":
        """A permutation drawn uniformly."""
        return cls(torch.randperm(channels, generator=generator, device="cpu"))

    @classmethod
    def reversing(cls, channels: int) -> "Permutation":
        """The last becomes the first, as between the layers of MAF (arXiv 1705.07057, section 3.1)."""
        return cls(range(channels - 1, -1, -1))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_channels(x, len(self.index), "Permutation")
        return x[:, self.index], x.new_zeros(x.shape[0])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_channels(z, len(self.index), "Permutation")
        # Computed from the index at each call: a second buffer could come to disagree with the first.
        return z[:, self.index.argsort()], z.new_zeros(z.shape[0])


def require_permutation(index: Tensor, owner: str) -> None:
    """Raise ValueError unless index is (C,) and holds each of 0..C-1 once.

    What is loaded is looked at too: an average of models that averages buffers as well
    (`torch.optim.swa_utils.AveragedModel` with `use_buffers=True`) rounds integers down, and with one channel
    twice densities would be wrong and finite.
    """
    if index.is_meta:  # nothing to look at
        return
    if index.ndim != 1 or sorted(index.tolist()) != list(range(len(index))):
        raise ValueError(f"{owner} expected each of 0..C-1 exactly once; got {index.tolist()}")


def _check_loaded(module: Permutation, _: Any) -> None:
    require_permutation(module.index, "Permutation")
