"""Torch as an engine: on every device, and what models are fitted and evaluated with."""

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from flows.fastflow.backbones.memory import count_tensor_bytes
from flows.fastflow.backbones.recorded import FrozenBackbone
from flows.fastflow.config import ScoreRule
from flows.fastflow.manifest import Precision
from flows.fastflow.model.fused import Energies, FusedHead
from flows.fastflow.model.head import Head, autocast_for, keeps_float32
from flows.fastflow.scoring.cpu_scoring import PixelPlanes, pixel_planes

if TYPE_CHECKING:
    from flows.fastflow.backbones.features import FeatureExtractor


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

    def backbone(self, extractor: FrozenBackbone, input_size: tuple[int, int]) -> "_TorchBackbone":
        """See `Engine`."""
        return _TorchBackbone(extractor.layers(), input_size, self.precision)

    def head(self, head: Head) -> "_TorchHead":
        """See `Engine`."""
        return _TorchHead(head, self.precision, self.device)

    def pixels(self, rule: ScoreRule, size: tuple[int, int]) -> Callable[[Energies], Iterable[PixelPlanes]]:
        """See `Engine`."""
        return partial(pixel_planes, rule=rule, size=size)


class _TorchBackbone:
    """See `engines.RunningBackbone`."""

    def __init__(self, layers: "FeatureExtractor", input_size: tuple[int, int], precision: Precision) -> None:
        # Kept, though it may compute with others: `layers()` of a record gives who asks next the same again.
        self._layers = layers
        self._computing = layers if precision == "float32" else _rounding(layers, input_size)
        self._precision = precision
        self.batches: tuple[int, ...] = (1,)
        self.nbytes = layers.nbytes

    def __call__(self, images: Tensor) -> list[Tensor]:
        device = self._layers.device
        with autocast_for(self._precision, device):
            return list(self._computing(images.to(device)))


class _TorchHead:
    """See `engines.RunningHead`."""

    def __init__(self, head: Head, precision: Precision, device: torch.device) -> None:
        self._fused = FusedHead(head)
        # What CPUs and GPUs compute in.
        self._fused.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._precision = precision
        self._device = device
        self.nbytes = count_tensor_bytes(self._fused.buffers())

    def specialise(self, sizes: Sequence[tuple[int, ...]]) -> None:
        """See `engines.RunningHead`: there is nothing to compile."""

    def __call__(self, maps: Sequence[Tensor]) -> Energies:
        features = self._fused.normaliser(maps)
        with autocast_for(self._precision, self._device):
            flow = self._fused.flow_energies(features)
        return self._fused.complete(maps, features, flow)


def _rounding(layers: "FeatureExtractor", size: tuple[int, int]) -> "FeatureExtractor":
    """The same layers, which leave convolutions of large maps out of autocast.

    Modules of their own, with the same weights: those given are shared with engines that compute otherwise,
    in other threads. Theirs is called under autocast alone, whose state is each thread's own.
    """

    def before(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        [x] = inputs
        if not keeps_float32(x.shape[2:], size):
            return None
        torch.set_autocast_enabled(x.device.type, False)
        return (x.float(),)

    def after(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        del output
        torch.set_autocast_enabled(inputs[0].device.type, True)

    weights = (*layers.parameters(), *layers.buffers())
    own = copy.deepcopy(layers, {id(weight): weight for weight in weights})
    for module in own.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(before)
            module.register_forward_hook(after)
    return own
