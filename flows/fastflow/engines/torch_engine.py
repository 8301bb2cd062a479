"""Torch as an engine: on every device, and what models are fitted and evaluated with."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor, nn

from flows.fastflow.features import FeatureExtractor
from flows.fastflow.fused import Energies, FusedHead, memory_of
from flows.fastflow.head import Head, computing
from flows.fastflow.manifest import Precision

# In bfloat16 convolutions of larger maps than a picture divided by this stay in float32: low contrast is what
# rounding takes, and most of it from the first layers (docs/experiments.md, 8).
EXACT_ABOVE: Final = 4


class TorchEngine:
    """Computes with torch, eagerly.

    Args:
        precision: what convolutions are computed in, but for a backbone's first. bfloat16 has 8 bits of
            precision and takes half the memory traffic; energies and scores are float32 in any case.
        device: where; that of the extractor and of the heads.
    """

    batches: tuple[int, ...] = (1,)

    def __init__(self, precision: Precision, device: torch.device) -> None:
        self.precision = precision
        self.device = device
        self.name = f"torch-{device.type}-{precision}"

    def backbone(
        self, extractor: FeatureExtractor, input_size: tuple[int, int]
    ) -> Callable[[Tensor], list[Tensor]]:
        """See `Engine`."""
        if self.precision == "float32":
            return lambda images: list(extractor(images.to(self.device)))

        def run(images: Tensor) -> list[Tensor]:
            with computing(self.precision, self.device), _first_exact(extractor, input_size):
                return list(extractor(images.to(self.device)))

        return run

    def head(self, head: Head) -> "_TorchHead":
        """See `Engine`."""
        return _TorchHead(head, self.precision, self.device)

    def forget(self) -> bool:
        """See `Engine`."""
        return False


class _TorchHead:
    """See `engines.RunningHead`."""

    def __init__(self, head: Head, precision: Precision, device: torch.device) -> None:
        self._fused = FusedHead(head)
        # What CPUs and GPUs compute in.
        self._fused.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._precision = precision
        self._device = device
        self.nbytes = memory_of(self._fused.buffers())

    def specialise(self, sizes: Sequence[tuple[int, ...]]) -> None:
        """See `engines.RunningHead`: there is nothing to compile."""

    def __call__(self, maps: Sequence[Tensor]) -> Energies:
        features = self._fused.normaliser(maps)
        with computing(self._precision, self._device):
            flow = self._fused.flow_energies(features)
        return self._fused.conclude(maps, features, flow)


@contextmanager
def _first_exact(extractor: FeatureExtractor, size: tuple[int, int]) -> Iterator[None]:
    """Under autocast: convolutions whose input is still large are left out of it."""

    def before(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        [x] = inputs
        if EXACT_ABOVE * x.shape[2] <= size[0]:
            return None
        torch.set_autocast_enabled(x.device.type, False)
        return (x.float(),)

    def after(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        del output
        torch.set_autocast_enabled(inputs[0].device.type, True)

    handles = []
    for module in extractor.modules():
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_pre_hook(before))
            handles.append(module.register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
