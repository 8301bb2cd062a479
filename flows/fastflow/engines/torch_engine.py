"""Torch as an engine: on every device, and what models are fitted and evaluated with."""

import copy
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from flows.fastflow.finish import Pixels, pixels_of
from flows.fastflow.fused import Energies, FusedHead
from flows.fastflow.head import Head, computing, stays_exact
from flows.fastflow.manifest import Backbone, Precision
from flows.fastflow.memory import memory_of
from flows.fastflow.recorded_backbone import FrozenBackbone
from flows.fastflow.rounding import PROBES, gram, portions, probe, round_together
from flows.fastflow.score import ScoreRule

if TYPE_CHECKING:
    from flows.fastflow.features import FeatureExtractor


# Of a backbone, on a device and for pictures of a size: rounded once for all engines and categories, and let
# go with it.
_ROUNDED: WeakKeyDictionary["FeatureExtractor", dict[tuple[str, tuple[int, int]], dict[str, nn.Parameter]]]
_ROUNDED = WeakKeyDictionary()
_ROUNDING = threading.Lock()


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

    def pixels(self, rule: ScoreRule, size: tuple[int, int]) -> Callable[[Energies], Iterable[Pixels]]:
        """See `Engine`."""
        return partial(pixels_of, rule=rule, size=size)

    def has_compiled(self, backbone: Backbone, input_size: tuple[int, int]) -> bool:
        """See `Engine`: it computes with the layers."""
        return False

    def forget(self) -> bool:
        """See `Engine`."""
        return False


class _TorchBackbone:
    """See `engines.RunningBackbone`."""

    def __init__(self, layers: "FeatureExtractor", input_size: tuple[int, int], precision: Precision) -> None:
        # Kept, though it may compute with others: `layers()` of a record gives who asks next the same again.
        self._layers = layers
        self._computing = layers if precision == "float32" else _rounding(layers, input_size)
        self._precision = precision
        self.batches: tuple[int, ...] = (1,)
        shared = {id(weight) for weight in layers.parameters()}
        own = [weight for weight in self._computing.parameters() if id(weight) not in shared]
        self.nbytes = layers.nbytes + memory_of(own)

    def __call__(self, images: Tensor) -> list[Tensor]:
        device = self._layers.device
        with computing(self._precision, device):
            return list(self._computing(images.to(device)))


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


def _rounding(layers: "FeatureExtractor", size: tuple[int, int]) -> "FeatureExtractor":
    """The same layers, which leave convolutions of large maps out of autocast, and round the others well.

    Modules of their own: those given are shared with engines that compute otherwise, in other threads. Theirs
    is called under autocast alone, whose state is each thread's own. Weights are shared but for those that
    are rounded together, see `flows.fastflow.rounding`.
    """

    def before(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        [x] = inputs
        if not stays_exact(x.shape[2:], size):
            return None
        torch.set_autocast_enabled(x.device.type, False)
        return (x.float(),)

    def after(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        del output
        torch.set_autocast_enabled(inputs[0].device.type, True)

    weights = (*layers.parameters(), *layers.buffers())
    own = copy.deepcopy(layers, {id(weight): weight for weight in weights})
    key = (str(layers.device), size)
    with _ROUNDING:
        known = _ROUNDED.setdefault(layers, {})
        if key not in known:
            known[key] = _rounded_together(own, size)
    for name, module in own.named_modules():
        if isinstance(module, nn.Conv2d):
            module.weight = known[key].get(name, module.weight)
            module.register_forward_pre_hook(before)
            module.register_forward_hook(after)
    return own


def _rounded_together(layers: "FeatureExtractor", size: tuple[int, int]) -> dict[str, nn.Parameter]:
    """Weights that bfloat16 holds, by the names of the convolutions that are not computed in float32."""
    # Others, which standardise their weights in every pass, would round them anew.
    convolutions = {
        name: module
        for name, module in layers.named_modules()
        if isinstance(module, nn.Conv2d) and type(module).__name__ in ("Conv2d", "Conv2dSame")
    }
    shapes: dict[str, tuple[int, int]] = {}

    def note(name: str, module: nn.Conv2d, x: Tensor) -> None:
        if not stays_exact(x.shape[2:], size):
            shapes[name] = (module.groups, module.weight[0].numel())

    _watched(layers, size, convolutions, note, 1)
    names = list(shapes)
    found: dict[str, nn.Parameter] = {}
    for portion in portions(list(shapes.values())):
        grams: dict[str, Tensor] = {}

        def add(name: str, module: nn.Conv2d, x: Tensor, grams: dict[str, Tensor] = grams) -> None:
            how = {"stride": module.stride, "padding": _padding(module), "dilation": module.dilation}
            covered = gram(x, module.groups, module.kernel_size, **how)
            grams[name] = grams[name].add_(covered) if name in grams else covered

        _watched(layers, size, {names[i]: convolutions[names[i]] for i in portion}, add, PROBES)
        found |= {name: _rounded(convolutions[name].weight, covered) for name, covered in grams.items()}
    return found


def _watched(
    layers: "FeatureExtractor",
    size: tuple[int, int],
    convolutions: Mapping[str, nn.Conv2d],
    watch: Callable[[str, nn.Conv2d, Tensor], None],
    probes: int,
) -> None:
    """Compute made-up pictures while something looks at what comes to convolutions."""

    def look(name: str, module: nn.Conv2d, inputs: tuple[Tensor]) -> None:
        watch(name, module, inputs[0])

    handles = [m.register_forward_pre_hook(partial(look, name)) for name, m in convolutions.items()]
    for number in range(probes):
        layers(torch.from_numpy(probe(number, size)[None]).to(layers.device))
    for handle in handles:
        handle.remove()


def _rounded(weight: Tensor, covered: Tensor) -> nn.Parameter:
    flat = weight.float().cpu().reshape(*covered.shape[:1], -1, covered.shape[1])
    found = round_together(flat, covered).reshape(weight.shape).to(weight)
    return nn.Parameter(found, requires_grad=False)


def _padding(module: nn.Conv2d) -> tuple[int, ...]:
    """On both sides; of one that pads by the size of its input, about as much."""
    if type(module) is nn.Conv2d and not isinstance(module.padding, str):
        return module.padding
    return tuple(d * (k // 2) for d, k in zip(module.dilation, module.kernel_size, strict=True))
