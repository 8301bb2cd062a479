"""A backbone's graph for bfloat16 that loses least: weights rounded together, and biases not at all.

See `flows.fastflow.rounding` for the weights. OpenVINO multiplies what a batch normalisation does to a
channel into the weights before it rounds them, so it is multiplied here, or they would be rounded once more.
What the normalisation adds it takes as the convolution's bias, in the format of what comes out: rounded, the
same error at every position. After something that is no sum it is added in float32, in the same pass. What
both do to the features is in docs/experiments.md, 17.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino as ov
import openvino.opset13 as op
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from flows.fastflow.plain_files import temporary_directory
from flows.fastflow.rounding import MOST_INPUTS, PROBES, VERSION, gram, nearest, probe, round_together

logger = logging.getLogger("flowgauge.openvino")

# A clamp at it changes no number, and keeps OpenVINO from taking what is added next for a bias.
_FAR: Final = 1e30


@dataclass(frozen=True)
class _Convolution:
    """A convolution whose weights can be rounded.

    Attributes:
        node: in the graph.
        place: among the graph's operations.
        weights: (groups, out / groups, in / groups, height, width), with the normalisation's gain.
        after: the batch normalisation that follows, or None.
        bias: (out,), what it then adds.
    """

    node: Any
    place: int
    weights: NDArray[np.float32]
    after: Any | None
    bias: NDArray[np.float32] | None


def round_convolutions(core: Any, parts: Sequence[Any], size: tuple[int, int], kept: Path | None) -> None:
    """Give the convolutions of the last part weights that bfloat16 holds, and biases that stay as they are.

    Args:
        core: OpenVINO's.
        parts: a backbone's graph, or two of which the second goes on from the last output of the first; of
            one picture.
        size: (height, width) of the pictures.
        kept: of the graph: rounded weights, which take seconds, are kept beside it; None keeps nothing.
    """
    *before, last = parts
    beside = None if kept is None else kept.with_suffix(f".rounded-{VERSION}.safetensors")
    convolutions = list(_convolutions(last))
    weights = _read(beside, convolutions)
    if weights is None:
        several = [c for c in convolutions if c.weights[0, 0].size <= MOST_INPUTS]
        grams = _grams(core, before, last, several, size)
        covered = {c.place: found for c, found in zip(several, grams, strict=True)}
        weights = [
            round_together(_flat(c), covered[c.place]) if c.place in covered else nearest(_flat(c))
            for c in convolutions
        ]
        _write(beside, weights)
    for convolution, rounded in zip(convolutions, weights, strict=True):
        _replace_weights(convolution.node, rounded.numpy())
        if convolution.after is not None and convolution.bias is not None:
            _add_exactly(convolution.node, convolution.after, convolution.bias)
    last.validate_nodes_and_infer_types()


def _convolutions(model: Any) -> Iterable[_Convolution]:
    for place, node in enumerate(model.get_ordered_ops()):
        kind = node.get_type_name()
        if kind not in ("Convolution", "GroupConvolution"):
            continue
        weights = _value(node.input_value(1))
        how = node.get_attributes()
        if weights is None or how["auto_pad"] != "explicit" or len(how["strides"]) != 2:
            continue
        if kind == "Convolution":
            weights = weights[None]
        users = _users(node)
        if len(users) != 1 or users[0].get_type_name() != "BatchNormInference":
            yield _Convolution(node, place, weights, None, None)
            continue
        [after] = users
        values = [v for i in range(1, 5) if (v := _value(after.input_value(i))) is not None]
        if len(values) < 4:
            continue
        gamma, beta, mean, variance = values
        gain = gamma / np.sqrt(variance + np.float32(after.get_attributes()["epsilon"]))
        by_channel = gain.reshape(*weights.shape[:2], 1, 1, 1)
        yield _Convolution(node, place, weights * by_channel, after, beta - gain * mean)


def _value(port: Any) -> NDArray[np.float32] | None:
    """A float32 constant, perhaps kept in another shape or format; None where it is none."""
    node, shape = port.get_node(), port.get_partial_shape()
    while node.get_type_name() in ("Reshape", "Convert"):
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Constant" or shape.is_dynamic or port.get_element_type() != ov.Type.f32:
        return None
    found: NDArray[np.float32] = node.data.astype(np.float32).reshape(shape.to_shape())
    return found


def _grams(
    core: Any, before: Sequence[Any], last: Any, convolutions: Sequence[_Convolution], size: tuple[int, int]
) -> list[Tensor]:
    """Of each convolution's inputs, over all probes."""
    if not convolutions:
        return []
    clone = last.clone()
    order = clone.get_ordered_ops()
    ports = [order[convolution.place].input_value(0) for convolution in convolutions]
    # Several may take the same map, which comes out once. What none of them needs is not computed.
    names = [(port.get_node().get_name(), port.get_index()) for port in ports]
    distinct = dict(zip(names, ports, strict=True))
    asked = ov.Model([op.result(port) for port in distinct.values()], clone.get_parameters())
    places = [list(distinct).index(name) for name in names]
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    graphs = [core.compile_model(graph, "CPU", exact) for graph in (*before, asked)]
    found: list[Tensor] = []
    for number in range(PROBES):
        given: Any = probe(number, size)[None]
        for graph in graphs[:-1]:
            given = graph(given)[len(graph.outputs) - 1]
        answer = graphs[-1](given)
        for i, (convolution, place) in enumerate(zip(convolutions, places, strict=True)):
            covered = _gram(convolution, answer[place])
            # In place: those of wide networks take hundreds of megabytes.
            if number == 0:
                found.append(covered)
            else:
                found[i] += covered
    return found


def _gram(convolution: _Convolution, x: NDArray[np.float32]) -> Tensor:
    how = convolution.node.get_attributes()
    (top, left), (bottom, right) = how["pads_begin"], how["pads_end"]
    padded = torch.from_numpy(np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right))))
    groups, _, _, *kernel = convolution.weights.shape
    return gram(padded, groups, kernel, stride=how["strides"], padding=(0, 0), dilation=how["dilations"])


def _flat(convolution: _Convolution) -> Tensor:
    """(groups, out / groups, K)."""
    return torch.from_numpy(convolution.weights).flatten(2)


def _read(kept: Path | None, convolutions: Sequence[_Convolution]) -> list[Tensor] | None:
    if kept is None:
        return None
    try:
        found = load_file(kept)
    except (OSError, SafetensorError):  # it is not there, or damaged
        return None
    shapes = {f"{i}": _flat(convolution).shape for i, convolution in enumerate(convolutions)}
    if {name: tensor.shape for name, tensor in found.items()} != shapes:
        return None
    return [found[name].float() for name in shapes]


def _write(kept: Path | None, weights: Sequence[Tensor]) -> None:
    if kept is None:
        return
    tensors = {f"{i}": weight.to(torch.bfloat16).contiguous() for i, weight in enumerate(weights)}
    try:
        with temporary_directory(kept.parent) as temporary:
            save_file(tensors, temporary / kept.name)
            (temporary / kept.name).replace(kept)
    except (OSError, SafetensorError) as error:  # such as a full disk, for which no model is refused
        logger.warning("%s cannot be kept (%s): the next start rounds weights again", kept, error)


def _replace_weights(node: Any, weights: NDArray[np.float32]) -> None:
    shape = node.input_value(1).get_shape()
    node.input(1).replace_source_output(op.constant(weights.reshape(shape)).output(0))


def _add_exactly(node: Any, after: Any, bias: NDArray[np.float32]) -> None:
    """Add a bias in the place of a normalisation; to the sum with another map, where there is one.

    OpenVINO adds that map in the same pass as it convolves, if nothing lies between.
    """
    y, replaced = node, after
    users = _users(after)
    if len(users) == 1 and users[0].get_type_name() == "Add":
        [replaced] = users
        place = next(i for i in range(2) if replaced.input_value(i).get_node().get_name() != after.get_name())
        y = op.add(node, replaced.input_value(place))
    wide = op.constant(bias.reshape(1, -1, 1, 1))
    replaced.output(0).replace(op.add(op.clamp(y, -_FAR, _FAR), wide).output(0))


def _users(node: Any) -> list[Any]:
    return [target.get_node() for target in node.output(0).get_target_inputs()]
