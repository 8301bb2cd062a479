"""The graph of a head's inference form for OpenVINO, in which weights are inputs, or constants.

With inputs, heads of one shape, of however many categories, share one compiled graph: a category costs its
weights and nothing else, and a new one no compilation. With constants a graph is faster, and of one head.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
import openvino as ov
import openvino.opset13 as op
from torch import Tensor, nn

from flows.fastflow.engines.openvino.primitives import constant
from flows.fastflow.model.fused import AlternatingFlow, CouplingStep, FusedHead, ShuffledFlow

# Of each map that a head takes, (N, C, H, W).
Sizes: TypeAlias = tuple[tuple[int, ...], ...]


def graph_weights(head: FusedHead) -> dict[str, Tensor]:
    """What the graph takes beside feature maps, by the names of its inputs, in their order."""
    # What the lowest log-scales are says the same as the gain, for torch.
    return {name: weight for name, weight in head.named_buffers() if not name.endswith(".lowest")}


def build_head_graph(head: FusedHead, sizes: Sizes, *, own: bool = False) -> ov.Model:
    """The graph of heads that have this one's shape.

    Inputs are feature maps, per scale, and then what `graph_weights` gives. Outputs are `Energies`, one after
    the other.

    Args:
        head: one of that shape.
        sizes: of the maps, (N, C_i, H_i, W_i).
        own: the graph is this head's alone, and its weights are in it, not inputs.

    Raises:
        ValueError: there are other scales or channels.
    """
    found = tuple(c for _, c, *_ in sizes)
    if found != tuple(head.channels):
        raise ValueError(f"expected feature maps of {tuple(head.channels)} channels; got {found}")
    graph = _Graph(head, own)
    scales = [graph.scale(i, size) for i, size in enumerate(sizes)]
    flow = [graph.flow(f"scales.{i}", head.scales[i], one.features) for i, one in enumerate(scales)]
    gaussian = [graph.gaussian(i, one.features) for i, one in enumerate(scales)]
    first = head.image.first
    image = [graph.image(i, one) for i, one in enumerate(scales[first:], first)]
    seen = zip(*(one.seen for one in scales), strict=True)
    results = [
        *flow,
        *gaussian,
        _beside(image),
        *(_beside([_mean(x, (1,)) for x in of_all]) for of_all in seen),
    ]
    return ov.Model(results, [*(one.given for one in scales), *graph.inputs], "head")


class _Scale(NamedTuple):
    """What a head makes of the maps of one scale.

    Attributes:
        given: the graph's input.
        features: (N, C, H, W), normalised.
        mean: of each of their channels, (N, C).
        variance: likewise.
        seen: mean and mean square of each channel, (N, C), of what `Energies` tells.
    """

    given: Any
    features: Any
    mean: Any
    variance: Any
    seen: tuple[Any, Any]


class _Graph:
    """Builds parts of the graph; weights are inputs, or constants."""

    def __init__(self, head: FusedHead, own: bool) -> None:
        self._head, self._own = head, own
        make = _constant_of if own else _input_of
        self._weights = {name: make(tensor) for name, tensor in graph_weights(head).items()}
        self.inputs = [] if own else list(self._weights.values())

    def scale(self, i: int, size: tuple[int, ...]) -> _Scale:
        given = op.parameter(list(size), np.float32)
        x = self._pooled(i, given)
        if self._head.normaliser.mode == "layer":
            return self._by_layer(given, x)
        mean, std = self._weight(f"normaliser.mean_{i}"), self._weight(f"normaliser.std_{i}")
        features = op.divide(op.subtract(x, _per_channel(mean)), _per_channel(std))
        mean, square = _moments(features)
        # Of channels near 0 the difference has its digits, and takes no further pass over the maps.
        variance = op.relu(op.subtract(square, op.multiply(mean, mean)))
        return _Scale(given, features, mean, variance, (mean, square))

    def _by_layer(self, given: Any, pooled: Any) -> _Scale:
        features = op.mvn(pooled, constant([1, 2, 3], np.int64), True, 1e-5, "inside_sqrt")
        mean = _mean(features, (2, 3))
        offset = op.subtract(features, op.unsqueeze(mean, constant([2, 3], np.int64)))
        variance = _mean(op.multiply(offset, offset), (2, 3))
        return _Scale(given, features, mean, variance, _moments(given))

    def _pooled(self, i: int, x: Any) -> Any:
        side = self._head.normaliser.windows[i]
        if side == 1:
            return x
        pad = side // 2
        return op.avg_pool(x, [1, 1], [pad, pad], [pad, pad], [side, side], True)

    def flow(self, name: str, flow: nn.Module, x: Any) -> Any:
        if isinstance(flow, AlternatingFlow):
            halves = [
                op.gather(x, self._weight(f"{name}.{half}"), constant(1, np.int64))
                for half in ("first", "second")
            ]
            for i, step in enumerate(cast(Sequence[CouplingStep], flow.steps)):
                seen, changed = i % 2, 1 - i % 2
                halves[changed] = self._step(f"{name}.steps.{i}", step, halves[seen], halves[changed])
            halves[seen] = self._pass_by(f"{name}.steps.{i}", halves[seen])
            return self._energy(halves, flow.channels)
        steps = cast(ShuffledFlow, flow)
        orders = op.split(self._weight(f"{name}.orders"), constant(0, np.int64), len(steps.steps))
        for i, step in enumerate(cast(Sequence[CouplingStep], steps.steps)):
            seen, changed = _split(x, (steps.split, steps.channels - steps.split))
            y = self._step(f"{name}.steps.{i}", step, seen, changed)
            x = op.concat([self._pass_by(f"{name}.steps.{i}", seen), y], 1)
            x = op.gather(x, op.squeeze(orders.output(i), constant([0], np.int64)), constant(1, np.int64))
        return self._energy([x], steps.channels)

    def gaussian(self, i: int, x: Any) -> Any:
        offset = self._weight(f"offset_{i}")
        of_positions = len(offset.shape) == 3
        wide = op.unsqueeze(offset, constant([0], np.int64)) if of_positions else _per_channel(offset)
        z = op.subtract(_convolve(x, self._weight(f"kernel_{i}")), wide)
        return self._energy([z], self._head.channels[i])

    def image(self, i: int, scale: _Scale) -> Any:
        look = op.concat([scale.mean, op.sqrt(scale.variance)], 1)
        place = i - self._head.image.first
        centred = op.subtract(look, self._weight(f"image.mean_{place}"))
        z = op.matmul(centred, self._weight(f"image.whitening_{place}"), False, False)
        return op.multiply(_mean(op.multiply(z, z), (1,)), constant(0.5))

    def _step(self, name: str, step: CouplingStep, seen: Any, x: Any) -> Any:
        def get(part: str) -> Any:
            return self._weight(f"{name}.{part}")

        hidden = op.relu(op.add(_convolve(seen, get("hidden_weight")), _per_channel(get("hidden_bias"))))
        if step.has_middle:
            spread = _convolve_each(hidden, get("middle_weight"))
            hidden = op.relu(op.add(spread, _per_channel(get("middle_bias"))))
        a, shift = self._last_of(hidden, get("weight"), get("bias"), step.changed)
        if step.has_before:
            x = op.add(x, get("before"))
        # exp(c tanh(a / 2)), where the slope is 2 c. Less a half, and so around 0, where bfloat16 is as fine
        # as of tanh. In a head's own graph OpenVINO computes both in the convolution before, where tanh took
        # four times as long as that.
        gate = op.subtract(op.sigmoid(a), constant(0.5))
        scale = op.exp(op.multiply(gate, constant(step.slope)))
        return op.add(op.multiply(op.multiply(x, get("gain")), scale), shift)

    def _last_of(self, hidden: Any, weight: Any, bias: Any, n: int) -> list[Any]:
        """What the last convolution makes, 2 n channels, in two halves."""
        if not self._own:
            return _split(op.add(_convolve(hidden, weight), _per_channel(bias)), (n, n))
        # OpenVINO lays out a map anew to part its channels. Weights that are inputs it would part every time.
        parts = zip(_split(weight, (n, n), axis=0), _split(bias, (n, n), axis=0), strict=True)
        return [op.add(_convolve(hidden, w), _per_channel(b)) for w, b in parts]

    def _pass_by(self, name: str, x: Any) -> Any:
        return op.add(
            op.multiply(x, self._weight(f"{name}.passed_gain")), self._weight(f"{name}.passed_shift")
        )

    def _energy(self, parts: Sequence[Any], channels: int) -> Any:
        """q = 1/2 mean_C z^2 of z whose channels lie in several maps: (N, H, W)."""
        sums = [op.reduce_sum(op.multiply(z, z), constant([1], np.int64), False) for z in parts]
        total = sums[0] if len(sums) == 1 else op.add(*sums)
        return op.multiply(total, constant(0.5 / channels))

    def _weight(self, name: str) -> Any:
        return self._weights[name]


def _input_of(weight: Tensor) -> Any:
    return op.parameter(list(weight.shape), np.float32 if weight.is_floating_point() else np.int64)


def _constant_of(weight: Tensor) -> Any:
    return op.constant(weight.contiguous().numpy())


def _convolve(x: Any, weight: Any) -> Any:
    padding = [weight.shape[2] // 2] * 2
    return op.convolution(x, weight, [1, 1], padding, padding, [1, 1])


def _convolve_each(x: Any, weight: Any) -> Any:
    """Each channel with a kernel of its own, (C, 1, k, k)."""
    padding = [weight.shape[2] // 2] * 2
    kernels = op.unsqueeze(weight, constant([2], np.int64))
    return op.group_convolution(x, kernels, [1, 1], padding, padding, [1, 1])


def _split(x: Any, sizes: Sequence[int], axis: int = 1) -> list[Any]:
    return list(op.variadic_split(x, constant(axis, np.int64), constant(list(sizes), np.int64)).outputs())


def _moments(x: Any) -> tuple[Any, Any]:
    """Mean and mean square of each channel, (N, C)."""
    return _mean(x, (2, 3)), _mean(op.multiply(x, x), (2, 3))


def _mean(x: Any, axes: Sequence[int]) -> Any:
    return op.reduce_mean(x, constant(list(axes), np.int64), False)


def _beside(columns: Sequence[Any]) -> Any:
    """Columns (N,) as (N, columns)."""
    return op.concat([op.unsqueeze(column, constant([1], np.int64)) for column in columns], 1)


def _per_channel(vector: Any) -> Any:
    """(C,) to what is broadcast over (N, C, H, W)."""
    return op.unsqueeze(vector, constant([0, 2, 3], np.int64))
