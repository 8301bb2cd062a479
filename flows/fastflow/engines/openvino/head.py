"""OpenVINO graph of a head's inference form, with weights as inputs or as constants.

With inputs, heads of one shape share one compiled graph: another category costs only its weights, and no
compilation. With constants a graph is faster, but belongs to one head.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
import openvino as ov
import openvino.opset13 as op
from torch import Tensor, nn

from flows.fastflow.engines.openvino.primitives import constant
from flows.fastflow.model.cells import CellGaussian
from flows.fastflow.model.fused import AlternatingFlow, CouplingStep, FusedHead, ShuffledFlow
from flows.fastflow.model.learned import MAX_ENERGY

# (N, C, H, W) of each input map.
Sizes: TypeAlias = tuple[tuple[int, ...], ...]


def graph_weights(head: FusedHead) -> dict[str, Tensor]:
    """Return the graph's weights by the names of its inputs, in their order."""
    # Torch uses the lowest log-scales in place of the gain.
    return {name: weight for name, weight in head.named_buffers() if not name.endswith(".lowest")}


def build_head_graph(head: FusedHead, sizes: Sizes, *, own: bool = False) -> ov.Model:
    """Build the graph of heads of one shape.

    Inputs are feature maps, one per scale, then `graph_weights`. Outputs are the fields of `Energies`.

    Args:
        head: a head of that shape.
        sizes: sizes of the maps, (N, C_i, H_i, W_i).
        own: build a graph for this head alone, with its weights as constants.

    Raises:
        ValueError: the numbers of scales or channels differ.
    """
    channels = tuple(c for _, c, *_ in sizes)
    if channels != tuple(head.channels):
        raise ValueError(f"expected feature maps of {tuple(head.channels)} channels; got {channels}")
    graph = _Graph(head, own)
    scales = [graph.scale(i, size) for i, size in enumerate(sizes)]
    gaussian = [graph.gaussian(i, one.features) for i, one in enumerate(scales)]
    flows = [graph.flow(f"scales.{i}", x, scales[i].features) for i, x in enumerate(head.scales)]
    flow = flows or gaussian
    first = head.image.first
    image = [graph.image(i, one) for i, one in enumerate(scales[first:], first)]
    if head.cells is not None:
        image.append(graph.cells(head.cells, scales[first].features))
    seen = zip(*(one.seen for one in scales), strict=True)
    results = [
        *flow,
        *gaussian,
        _stack_columns(image),
        *(_stack_columns([_mean(x, (1,)) for x in moments]) for moments in seen),
    ]
    if head.describes:
        results.append(_describe(scales, flow, gaussian))
    return ov.Model(results, [*(one.given for one in scales), *graph.inputs], "head")


class _Scale(NamedTuple):
    """Nodes of one scale.

    Attributes:
        given: the graph's input.
        features: (N, C, H, W), normalised.
        mean: (N, C), mean of each channel of the features.
        variance: (N, C), their variance.
        seen: (N, C) each, mean and mean square for the moments of `Energies`.
    """

    given: Any
    features: Any
    mean: Any
    variance: Any
    seen: tuple[Any, Any]


class _Graph:
    """Builder of the graph's parts, with weights as inputs or as constants."""

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
        # Channels are near 0, so the difference is exact, and needs no further pass over the maps.
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

    def cells(self, cells: CellGaussian, x: Any) -> Any:
        (height, width), (bottom, right) = cells.cell, cells.padding
        x = op.subtract(x, op.unsqueeze(self._weight("cells.mean"), constant([0], np.int64)))
        begins, ends = constant([0, 0, 0, 0], np.int64), constant([0, 0, bottom, right], np.int64)
        x = op.pad(x, begins, ends, "constant", constant(0.0))
        n, channels, rows, columns = x.shape
        shape = (n, channels, rows // height, height, columns // width, width)
        x = op.reshape(x, constant(list(shape), np.int64), False)
        x = op.transpose(x, constant([2, 4, 0, 3, 5, 1], np.int64))
        whitening = self._weight("cells.whitening")
        x = op.reshape(x, constant([whitening.shape[0], -1, channels], np.int64), False)
        z = op.matmul(x, whitening, False, False)
        energies = op.multiply(_mean(op.multiply(z, z), (2,)), constant(0.5))
        energies = op.reshape(energies, constant([0, n, height * width], np.int64), True)
        return op.reduce_max(energies, constant([0, 2], np.int64), False)

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
        # exp(c tanh(a / 2)) with slope 2 c. Minus a half, because bfloat16 is as fine near 0 as for tanh. In
        # a head's own graph OpenVINO fuses both into the convolution before; tanh took four times as long.
        gate = op.subtract(op.sigmoid(a), constant(0.5))
        scale = op.exp(op.multiply(gate, constant(step.slope)))
        return op.add(op.multiply(op.multiply(x, get("gain")), scale), shift)

    def _last_of(self, hidden: Any, weight: Any, bias: Any, n: int) -> list[Any]:
        """Apply the last convolution and split its 2 n channels in two halves."""
        if not self._own:
            return _split(op.add(_convolve(hidden, weight), _per_channel(bias)), (n, n))
        # OpenVINO copies a map to split its channels, so weights are split instead. Weights that are inputs
        # would be split at every call.
        parts = zip(_split(weight, (n, n), axis=0), _split(bias, (n, n), axis=0), strict=True)
        return [op.add(_convolve(hidden, w), _per_channel(b)) for w, b in parts]

    def _pass_by(self, name: str, x: Any) -> Any:
        return op.add(
            op.multiply(x, self._weight(f"{name}.passed_gain")), self._weight(f"{name}.passed_shift")
        )

    def _energy(self, parts: Sequence[Any], channels: int) -> Any:
        """Compute q = 1/2 mean_C z^2, (N, H, W), of z whose channels lie in several maps."""
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
    """Convolve each channel with its own kernel, (C, 1, k, k)."""
    padding = [weight.shape[2] // 2] * 2
    kernels = op.unsqueeze(weight, constant([2], np.int64))
    return op.group_convolution(x, kernels, [1, 1], padding, padding, [1, 1])


def _split(x: Any, sizes: Sequence[int], axis: int = 1) -> list[Any]:
    return list(op.variadic_split(x, constant(axis, np.int64), constant(list(sizes), np.int64)).outputs())


def _moments(x: Any) -> tuple[Any, Any]:
    """Compute mean and mean square of each channel, (N, C)."""
    return _mean(x, (2, 3)), _mean(op.multiply(x, x), (2, 3))


def _describe(scales: Sequence[_Scale], flow: Sequence[Any], gaussian: Sequence[Any]) -> Any:
    """See `learned.describe`."""
    weighted, totals = [], []
    for scale, q, e in zip(scales, flow, gaussian, strict=True):
        product = op.multiply(*(op.minimum(x, constant(MAX_ENERGY)) for x in (q, e)))
        tiny = constant(np.finfo(np.float32).tiny)
        weights = op.add(op.multiply(product, product), tiny)
        total = op.reduce_sum(weights, constant([1, 2], np.int64), False)
        # A matrix product, which reads the features once and writes no map.
        n, channels, height, width = scale.features.shape
        matrix = op.reshape(scale.features, constant([n, channels, height * width], np.int64), False)
        vector = op.reshape(weights, constant([n, height * width, 1], np.int64), False)
        sums = op.squeeze(op.matmul(matrix, vector, False, False), constant([2], np.int64))
        weighted.append(op.divide(sums, op.unsqueeze(total, constant([1], np.int64))))
        totals.append(total)
    return op.concat([*(scale.mean for scale in scales), *weighted, _stack_columns(totals)], 1)


def _mean(x: Any, axes: Sequence[int]) -> Any:
    return op.reduce_mean(x, constant(list(axes), np.int64), False)


def _stack_columns(columns: Sequence[Any]) -> Any:
    """Stack columns (N,) to (N, columns)."""
    return op.concat([op.unsqueeze(column, constant([1], np.int64)) for column in columns], 1)


def _per_channel(vector: Any) -> Any:
    """Reshape (C,) to broadcast over (N, C, H, W)."""
    return op.unsqueeze(vector, constant([0, 2, 3], np.int64))
