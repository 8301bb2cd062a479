"""Torch engine, for every device; training and evaluation use it."""

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
    """Engine that computes with eager torch.

    Args:
        precision: precision of convolutions, except for a backbone's first layers. bfloat16 has 8 bits of
            precision and half the memory traffic; energies and scores are always float32.
    """

    batches: tuple[int, ...] = (1,)

    def __init__(self, precision: Precision, device: torch.device) -> None:
        self.precision = precision
        self.device = device
        self.name = f"torch-{device.type}-{precision}"

    def backbone(self, extractor: FrozenBackbone, input_size: tuple[int, int]) -> "_TorchBackbone":
        return _TorchBackbone(extractor.layers(), input_size, self.precision)

    def head(self, head: Head, *, describes: bool = False) -> "_TorchHead":
        return _TorchHead(FusedHead(head, describes=describes), self.precision, self.device)

    def pixels(self, rule: ScoreRule, size: tuple[int, int]) -> Callable[[Energies], Iterable[PixelPlanes]]:
        return partial(pixel_planes, rule=rule, size=size)


class _TorchBackbone:
    """See `engine.BackboneRunner`."""

    def __init__(self, layers: "FeatureExtractor", input_size: tuple[int, int], precision: Precision) -> None:
        # Kept even if it computes with a copy: `layers()` of a record then returns the same module again.
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
    """See `engine.HeadRunner`."""

    def __init__(self, fused: FusedHead, precision: Precision, device: torch.device) -> None:
        self._fused = fused
        # The layout that CPUs and GPUs use.
        self._fused.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._precision = precision
        self._device = device
        self.nbytes = count_tensor_bytes(self._fused.buffers())

    def specialise(self, sizes: Sequence[tuple[int, ...]]) -> None:
        """See `engine.HeadRunner`: there is nothing to compile."""

    def __call__(self, maps: Sequence[Tensor]) -> Energies:
        features = self._fused.normaliser(maps)
        with autocast_for(self._precision, self._device):
            flow = self._fused.flow_energies(features)
        return self._fused.complete(maps, features, flow)


def _rounding(layers: "FeatureExtractor", size: tuple[int, int]) -> "FeatureExtractor":
    """Copy the layers, with the same weights, and exclude convolutions of large maps from autocast.

    A copy, because engines of other precisions share the given layers in other threads. The copy runs only
    under autocast, whose state belongs to the thread.
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
