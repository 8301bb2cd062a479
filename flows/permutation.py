"""Permutation of channels."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from flows.transform import Transform, require_channels


class Permutation(Transform):
    """Permutation of the channels, z[:, i] = x[:, index[i]], with log det = 0.

    It is stored as an index: a C x C matrix would cost C^2 multiplications per position, an index C reads.

    >>> Permutation([2, 0, 1]).forward(torch.tensor([[10, 20, 30]]))[0].tolist()
    [[30, 10, 20]]

    Args:
        index: permutation of 0 ... C - 1, for C channels of images or C dimensions of vectors.

    Raises:
        ValueError: the index, given or loaded by `load_state_dict`, is no permutation.
    """

    def __init__(self, index: Sequence[int] | Tensor) -> None:
        super().__init__()
        # On the CPU first, where its values are checked.
        index = torch.as_tensor(index, device="cpu")
        require_permutation(index, "Permutation")
        self.register_buffer("index", index.to(torch.get_default_device(), torch.int64))
        self.index: Tensor
        self.register_load_state_dict_post_hook(_check_loaded)  # type: ignore[no-untyped-call]

    @classmethod
    def random(cls, channels: int, generator: torch.Generator | None = None) -> "Permutation":
        """Draw a permutation uniformly."""
        return cls(torch.randperm(channels, generator=generator, device="cpu"))

    @classmethod
    def reversing(cls, channels: int) -> "Permutation":
        """Build the reversal of the channels, as between the layers of MAF (arXiv 1705.07057)."""
        return cls(range(channels - 1, -1, -1))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_channels(x, len(self.index), "Permutation")
        return x[:, self.index], x.new_zeros(x.shape[0])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_channels(z, len(self.index), "Permutation")
        # Computed at each call: a second buffer could disagree with the index.
        return z[:, self.index.argsort()], z.new_zeros(z.shape[0])


def require_permutation(index: Tensor, owner: str) -> None:
    """Raise ValueError unless index is (C,) and holds each of 0 ... C - 1 once.

    Loaded values need this check too: `torch.optim.swa_utils.AveragedModel` with `use_buffers=True` averages
    the index and rounds it down. With a channel twice, densities would be wrong but finite.
    """
    if index.is_meta:  # no values to check
        return
    if index.ndim != 1 or sorted(index.tolist()) != list(range(len(index))):
        raise ValueError(f"{owner} expected each of 0..C-1 exactly once; got {index.tolist()}")


def _check_loaded(module: Permutation, _: Any) -> None:
    require_permutation(module.index, "Permutation")
