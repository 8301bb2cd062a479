"""Activation normalisation: an affine layer that its first batch sets."""

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
    """Within it no `ActNorm` is set, in this thread: what is computed again must be what it was."""
    before = _initialises.set(False)
    try:
        yield
    finally:
        _initialises.reset(before)


class ActNorm(ChannelAffine):
    """z = exp(s) (x - m) + t per channel, set by the first training batch to mean 0 and deviation 1.

    Kingma and Dhariwal 2018, Glow, arXiv 1807.03039, section 3.1. log det = H W sum(s). The first batch sets
    m to its mean, s to minus the logarithm of its deviation, and leaves t at 0. From then on m stays, and s
    and t are ordinary parameters. (The paper has no m: its t is -mean / deviation, and where that is large a
    step in s moves all of z, so that fits of data far from 0 end worse.)

    Only a forward pass in training mode sets them, `eval()` never does; that they were set is part of the
    state_dict, so that a model that was loaded and trained on keeps what it has learned. So does one that was
    trained by its samples, through `inverse` alone: a first batch sets m and s only while s and t are 0, as
    they are made. A state_dict of before, which has no m (`center`), is one of m = 0.

    Within an `Inverse`, densities go through `inverse`, and no data set it: it is learned from s = t = 0, or
    set by a batch of latents that goes through `Inverse.inverse`. `Flow.sample` does not set it, unless it is
    compiled in training mode.

    Processes that train one model together (DistributedDataParallel) would each set it by their own batch,
    and average gradients of different models for good: give the model a first batch before it is wrapped,
    which hands the first process's m and s to all.

    >>> layer = ActNorm(2).train()
    >>> z, _ = layer.forward(5 + 3 * torch.randn(1000, 2))
    >>> z.mean().abs().item() < 1e-5, bool(layer.initialised)
    (True, True)

    Args:
        channels: C of images (N, C, H, W), D of vectors (N, D).
        floor: a channel that varies less than this in the first batch keeps its scale; unless given, one that
            varies no more than rounding lets a constant do, whatever the unit is.

    Raises:
        ValueError: the first training batch has a single value per channel, of which nothing can be learned.
    """

    def __init__(self, channels: int, *, floor: float | None = None) -> None:
        super().__init__(channels)
        self.floor = floor
        self.register_buffer("center", torch.zeros_like(self.shift.detach()))
        self.center: Tensor
        self.register_buffer("initialised", torch.tensor(False))
        self.initialised: Tensor
        # Once the buffer says so this stops it being read: each look would make the GPU be waited for.
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
        require_channels(x, len(self.log_scale), "ActNorm")  # a batch that is refused sets nothing
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
        if self.floor is None:
            # Means are taken in single precision at least.
            digits = torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps
            floor = (4 * digits * mean.abs()).clamp_min(torch.finfo(x.dtype).tiny)
        else:
            floor = torch.full_like(mean, self.floor)
        scale = torch.where(deviation > floor, deviation, 1.0)
        self.center.copy_(mean)
        self.log_scale.copy_(-scale.log())
        self.initialised.fill_(True)
        self._pending = False

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        shift = state_dict.get(prefix + "shift")
        # Not a part without this layer, nor parameters alone: those leave it as it is.
        if shift is not None and prefix + "initialised" in state_dict:
            state_dict.setdefault(prefix + "center", torch.zeros_like(shift))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _read_flag(module: ActNorm, _: Any) -> None:
    module._pending = not bool(module.initialised)
