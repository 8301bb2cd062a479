"""The graph of a head's inference form for OpenVINO, in which weights are inputs, or constants.

With inputs, heads of one shape, of however many categories, share one compiled graph: a category costs its
weights and nothing else, and a new one no compilation. With constants a graph is faster, and of one head.
"""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import openvino as ov
import openvino.opset13 as op
from torch import Tensor, nn

from flows.fastflow.engines.openvino_parts import constant, numbered
from flows.fastflow.engines.openvino_scale import exp_tanh
from flows.fastflow.fused import FusedHead, Step, Steps, Turns


def weights_of(head: FusedHead) -> dict[str, Tensor]:
    """What the graph takes beside feature maps, by the names of its inputs, in their order."""
    # What the lowest log-scales are says the same as the gain, for torch.
    return {name: weight for name, weight in head.named_buffers() if not name.endswith(".lowest")}


def build(head: FusedHead, *, own: bool = False, bfloat16: bool = False) -> ov.Model:
    """The graph of heads that have this one's shape.

    Inputs are feature maps, per scale (N, C_i, H_i, W_i) with any N, H_i, W_i, and then what `weights_of`
    gives. Outputs are `Energies`, one after the other.

    Args:
        head: one of that shape.
        own: the graph is this head's alone, and its weights are in it, not inputs.
        bfloat16: it is to be computed in bfloat16, the flow's halves and squares included, and with scales
            that are near enough for that.
    """
    graph = _Graph(head, own, bfloat16)
    maps = [op.parameter([-1, c, -1, -1], np.float32) for i, c in enumerate(head.channels)]
    features = [graph.normalise(i, x) for i, x in enumerate(maps)]
    flow = [graph.flow(f"scales.{i}", head.scales[i], x) for i, x in enumerate(features)]
    gaussian = [graph.gaussian(i, x) for i, x in enumerate(features)]
    moments = [_moments(x) for x in features]
    seen = [_moments(x) for x in maps] if head.normaliser.mode == "layer" else moments
    results = [
        *flow,
        *gaussian,
        graph.picture(features, moments),
        *(_beside([_mean(x, (1,)) for x in of_one]) for of_one in zip(*seen, strict=True)),
    ]
    return numbered(ov.Model(results, [*maps, *graph.inputs], "head"))


class _Graph:
    """Builds parts of the graph; weights are inputs, or constants."""

    def __init__(self, head: FusedHead, own: bool, bfloat16: bool) -> None:
        self._head, self._own, self._bfloat16 = head, own, bfloat16
        make = _constant_of if own else _input_of
        self._weights = {name: make(tensor) for name, tensor in weights_of(head).items()}
        self.inputs = [] if own else list(self._weights.values())

    def normalise(self, i: int, x: Any) -> Any:
        normaliser = self._head.normaliser
        side = normaliser.windows[i]
        if side > 1:
            pad = side // 2
            x = op.avg_pool(x, [1, 1], [pad, pad], [pad, pad], [side, side], True)
        if normaliser.mode == "layer":
            return op.mvn(x, constant([1, 2, 3], np.int64), True, 1e-5, "inside_sqrt")
        mean, std = self._weight(f"normaliser.mean_{i}"), self._weight(f"normaliser.std_{i}")
        return op.divide(op.subtract(x, _per_channel(mean)), _per_channel(std))

    def flow(self, name: str, flow: nn.Module, x: Any) -> Any:
        if isinstance(flow, Turns):
            halves = [self._half(name, flow, half, x) for half in ("first", "second")]
            for i, step in enumerate(cast(Sequence[Step], flow.steps)):
                seen, changed = i % 2, 1 - i % 2
                halves[changed] = self._step(f"{name}.steps.{i}", step, halves[seen], halves[changed])
            halves[seen] = self._pass_by(f"{name}.steps.{i}", halves[seen])
            return self._energy(halves, flow.channels)
        steps = cast(Steps, flow)
        orders = op.split(self._weight(f"{name}.orders"), constant(0, np.int64), len(steps.steps))
        for i, step in enumerate(cast(Sequence[Step], steps.steps)):
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

    def picture(self, features: Sequence[Any], moments: Sequence[tuple[Any, Any]]) -> Any:
        first, energies = self._head.picture.first, []
        for i, (x, (mean, square)) in enumerate(zip(features[first:], moments[first:], strict=True)):
            if self._head.normaliser.mode == "layer":
                offset = op.subtract(x, op.unsqueeze(mean, constant([2, 3], np.int64)))
                variance = _mean(op.multiply(offset, offset), (2, 3))
            else:
                # Of channels near 0 the difference has its digits, and takes no further pass over the maps.
                variance = op.relu(op.subtract(square, op.multiply(mean, mean)))
            look = op.concat([mean, op.sqrt(variance)], 1)
            centred = op.subtract(look, self._weight(f"picture.mean_{i}"))
            z = op.matmul(centred, self._weight(f"picture.whitening_{i}"), False, False)
            energies.append(op.multiply(_mean(op.multiply(z, z), (1,)), constant(0.5)))
        return _beside(energies)

    def _half(self, name: str, flow: Turns, half: str, x: Any) -> Any:
        """The channels of a half."""
        if not (self._own and self._bfloat16):
            return op.gather(x, self._weight(f"{name}.{half}"), constant(1, np.int64))
        # Where products of matrices are fast, one with ones and zeros costs less than laying out anew what
        # was gathered.
        chosen = np.eye(flow.channels, dtype=np.float32)[flow.get_buffer(half).numpy()]
        return _convolve(x, op.constant(chosen[:, :, None, None]))

    def _step(self, name: str, step: Step, seen: Any, x: Any) -> Any:
        def get(part: str) -> Any:
            return self._weight(f"{name}.{part}")

        hidden = op.relu(op.add(_convolve(seen, get("hidden_weight")), _per_channel(get("hidden_bias"))))
        if step.has_middle:
            spread = _convolve_each(hidden, get("middle_weight"))
            hidden = op.relu(op.add(spread, _per_channel(get("middle_bias"))))
        a, shift = self._last_of(hidden, get("weight"), get("bias"), step.changed)
        if step.has_before:
            x = op.add(x, get("before"))
        scaled = op.multiply(op.multiply(x, get("gain")), self._scale(a, step.slope))
        return op.add(scaled, shift)

    def _scale(self, a: Any, slope: float) -> Any:
        """exp(c tanh(a / 2)), where the slope is 2 c."""
        if self._bfloat16:
            scale = exp_tanh(a, slope / 2)
            if scale is not None:
                return scale
        # Less a half, and so around 0, where bfloat16 is as fine as of tanh. In a head's own graph OpenVINO
        # computes both in the convolution before, where tanh took four times as long as that.
        gate = op.subtract(op.sigmoid(a), constant(0.5))
        return op.exp(op.multiply(gate, constant(slope)))

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
        sums = [self._sum(op.multiply(z, z)) for z in parts]
        total = sums[0] if len(sums) == 1 else op.add(*sums)
        return op.multiply(op.squeeze(total, constant([1], np.int64)), constant(0.5 / channels))

    def _sum(self, x: Any) -> Any:
        """Over channels, (N, 1, H, W)."""
        if not self._bfloat16:
            return op.reduce_sum(x, constant([1], np.int64), True)
        # OpenVINO leaves in float32 whatever leads to an output past every convolution: from step to step,
        # the halves, which it would turn to bfloat16 for every convolution of them.
        channels = x.get_output_partial_shape(0)[1].get_length()
        return _convolve(x, op.constant(np.ones((1, channels, 1, 1), np.float32)))

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
