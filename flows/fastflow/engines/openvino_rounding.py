"""A backbone's graph for bfloat16 that loses least: weights rounded together, and biases hardly at all.

See `flows.fastflow.rounding` for the weights. OpenVINO multiplies what a batch normalisation does to a
channel into the weights before it rounds them, so it is multiplied here, or they would be rounded once more.
What is added to a channel is added in float32. What both do to the features is in docs/experiments.md, 17.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as op
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from flows.fastflow.engines.openvino_convolutions import Convolution, found_in, only_user
from flows.fastflow.engines.openvino_parts import added_exactly
from flows.fastflow.plain_files import replace_file
from flows.fastflow.rounding import PROBES, VERSION, gram, nearest, portions, probe, round_together

logger = logging.getLogger("flowgauge.openvino")


def round_convolutions(
    core: Any, settings: Mapping[str, Any], parts: Sequence[Any], size: tuple[int, int], kept: Path | None
) -> None:
    """Give the convolutions of the last part weights that bfloat16 holds, and biases that stay as they are.

    Args:
        core: OpenVINO's.
        settings: to compute made-up pictures by, in float32.
        parts: a backbone's graph, or two of which the second goes on from the last output of the first; of
            one picture.
        size: (height, width) of the pictures.
        kept: where rounded weights, which take seconds, are kept; see `rounded_beside`. None keeps nothing.
    """
    *before, last = parts
    every = list(found_in(last))
    # Of the others nothing is lost. `openvino_stem` makes one, and what is kept is the same without it.
    convolutions = [one for one in every if not torch.equal(nearest(one.flat), one.flat)]
    weights = _read(kept, convolutions)
    if weights is None:
        weights = [nearest(convolution.flat) for convolution in convolutions]
        for portion in portions([convolution.gram_shape for convolution in convolutions]):
            several = [convolutions[i] for i in portion]
            grams = _grams(core, settings, before, last, several, size)
            for i, covered in zip(portion, grams, strict=True):
                weights[i] = round_together(convolutions[i].flat, covered)
        _write(kept, weights)
    rounded = {one.place: found.numpy() for one, found in zip(convolutions, weights, strict=True)}
    for convolution in every:
        _replace_weights(convolution.node, rounded.get(convolution.place, convolution.weights))
        if convolution.bias is not None:
            _add_exactly(convolution, convolution.bias)
    last.validate_nodes_and_infer_types()


def rounded_beside(graph: Path) -> Path:
    """Where the rounded weights of a converted backbone are kept."""
    return graph.with_suffix(f".rounded-{VERSION}.safetensors")


def _grams(
    core: Any,
    settings: Mapping[str, Any],
    before: Sequence[Any],
    last: Any,
    convolutions: Sequence[Convolution],
    size: tuple[int, int],
) -> list[Tensor]:
    """Of each convolution's inputs, over all probes."""
    clone = last.clone()
    order = clone.get_ordered_ops()
    ports = [order[convolution.place].input_value(0) for convolution in convolutions]
    # Several may take the same map, which comes out once. What none of them needs is not computed.
    names = [(port.get_node().get_name(), port.get_index()) for port in ports]
    distinct = dict(zip(names, ports, strict=True))
    asked = ov.Model([op.result(port) for port in distinct.values()], clone.get_parameters())
    places = [list(distinct).index(name) for name in names]
    graphs = [core.compile_model(graph, "CPU", dict(settings)) for graph in (*before, asked)]
    found: list[Tensor] = []
    for number in range(PROBES):
        given: Any = probe(number, size)[None]
        for graph in graphs[:-1]:
            given = graph(given)[len(graph.outputs) - 1]
        answer = graphs[-1](given)
        for i, (convolution, place) in enumerate(zip(convolutions, places, strict=True)):
            covered = _gram(convolution, answer[place])
            if number == 0:
                found.append(covered)
            else:
                found[i] += covered
    return found


def _gram(convolution: Convolution, x: NDArray[np.float32]) -> Tensor:
    how = convolution.node.get_attributes()
    (top, left), (bottom, right) = how["pads_begin"], how["pads_end"]
    padded = torch.from_numpy(np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right))))
    groups, _, _, *kernel = convolution.weights.shape
    return gram(padded, groups, kernel, stride=how["strides"], padding=(0, 0), dilation=how["dilations"])


def _read(kept: Path | None, convolutions: Sequence[Convolution]) -> list[Tensor] | None:
    if kept is None:
        return None
    try:
        found = load(kept.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        logger.warning("%s cannot be read (%s): weights are rounded again", kept, error)
        return None
    shapes = {f"{i}": convolution.flat.shape for i, convolution in enumerate(convolutions)}
    if {name: tensor.shape for name, tensor in found.items()} != shapes:
        return None
    return [found[name].float() for name in shapes]


def _write(kept: Path | None, weights: Sequence[Tensor]) -> None:
    if kept is None:
        return
    tensors = {f"{i}": weight.to(torch.bfloat16).contiguous() for i, weight in enumerate(weights)}
    try:
        replace_file(kept, save(tensors))
    except OSError as error:  # such as a full disk, for which no model is refused
        logger.warning("%s cannot be kept (%s): the next start rounds weights again", kept, error)


def _replace_weights(node: Any, weights: NDArray[np.float32]) -> None:
    shape = node.input_value(1).get_shape()
    node.input(1).replace_source_output(op.constant(weights.reshape(shape)).output(0))


def _add_exactly(convolution: Convolution, bias: NDArray[np.float32]) -> None:
    """Add a bias in the place of what followed; to the sum with another map, where there is one.

    OpenVINO adds that map in the same pass as it convolves, if nothing lies between.
    """
    y, replaced = convolution.node, convolution.after
    if (total := only_user(replaced, "Add")) is not None:
        place = next(i for i in range(2) if total.input_value(i).get_node().get_name() != replaced.get_name())
        y, replaced = op.add(y, total.input_value(place)), total
    replaced.output(0).replace(added_exactly(y, bias).output(0))
