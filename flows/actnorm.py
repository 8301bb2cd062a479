"""Activation normalisation: an affine layer initialised by its first training batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from flows.scaling import ChannelAffine
from flows.transform import require_channels, require_floating

_initialises = ContextVar("initialises", default=True)


@contextmanager
def no_initialisation() -> Iterator[None]:
    """Keep every `ActNorm` of this thread from initialising, as for samples."""
    before = _initialises.set(False)
    try:
        yield
    finally:
        _initialises.reset(before)


class ActNorm(ChannelAffine):
    """Activation normalisation per channel, z = exp(s) (x - m) + t.

        log |det df/dx| = H W sum(s)

    Kingma and Dhariwal 2018, Glow, arXiv 1807.03039, section 3.1. The first training batch sets m to its mean
    and s to minus the logarithm of its deviation, so that its output has mean 0 and deviation 1. Then m stays
    fixed; s and t are ordinary parameters. The paper has no m: its t starts at -mean / deviation. Where that
    is large, a step in s moves all of z, and fits of data far from 0 end worse.

    Initialisation:

    - Only `forward` in training mode initialises. The flag `initialised` is part of the state_dict, so a
      loaded model keeps its parameters when training goes on.
    - Parameters learned through `inverse` alone are kept too: a first batch sets m and s only while
      s = t = 0.
    - Within an `Inverse`, data go through `inverse` and never initialise; s and t are learned from 0.
    - `Flow.sample` does not initialise, unless it is compiled in training mode.
    - With DistributedDataParallel, pass one training batch through the model before wrapping it. Otherwise
      each process initialises from its own batch, and the processes average gradients of different models.

    >>> layer = ActNorm(2).train()
    >>> z, _ = layer.forward(5 + 3 * torch.randn(1000, 2))
    >>> z.mean().abs().item() < 1e-5, bool(layer.initialised)
    (True, True)

    Args:
        channels: C of images (N, C, H, W), D of vectors (N, D). One whose deviation in the first batch is
            within the rounding error of its mean keeps its scale.

    Raises:
        ValueError: the first training batch has a single value per channel, or values that are not finite.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.register_buffer("center", torch.zeros_like(self.shift.detach()))
        self.center: Tensor
        self.register_buffer("initialised", torch.tensor(False))
        self.initialised: Tensor
        # Mirrors the buffer in Python: reading the buffer would make every pass wait for the GPU.
        self._pending = True
        self.register_load_state_dict_post_hook(_read_flag)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self._pending and self.training and _initialises.get() and not bool(self.initialised):
            self._initialise(x)
        return super().forward(x - self._broadcast(self.center, x))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_det = super().inverse(z)
        return x + self._broadcast(self.center, x), log_det

    @torch.no_grad()
    def _initialise(self, x: Tensor) -> None:
        require_channels(x, len(self.log_scale), "ActNorm")  # a refused batch initialises nothing
        require_floating(x, "ActNorm")
        if bool(self.log_scale.any() | self.shift.any()):  # learned already, through the inverse
            self.initialised.fill_(True)
            self._pending = False
            return
        values = x.detach().transpose(0, 1).flatten(1)  # (C, N H W)
        if values.shape[1] == 0:
            return
        if values.shape[1] == 1:
            raise ValueError(
                f"ActNorm expected a first training batch of several values per channel; got {tuple(x.shape)}"
            )
        deviation = values.std(1, correction=0)
        if not deviation.isfinite().all():
            raise ValueError("ActNorm expected a first training batch of finite values")
        mean = values.mean(1)
        # Means are computed in single precision at least.
        digits = torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps
        floor = (4 * digits * mean.abs()).clamp_min(torch.finfo(x.dtype).tiny)
        scale = torch.where(deviation > floor, deviation, 1.0)
        self.center.copy_(mean)
        self.log_scale.copy_(-scale.log())
        self.initialised.fill_(True)
        self._pending = False


def _read_flag(module: ActNorm, _: Any) -> None:
    module._pending = not bool(module.initialised)
