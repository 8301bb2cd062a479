"""A backbone's convolution of pixels, by bfloat16 and nearly as good as in float32.

bfloat16 holds every integer up to 256, and so every pixel less an integer, as long as nothing else is taken
off and no gain given before the convolution: what normalises pixels goes into its weights and its bias.
Weights are rounded together (`flows.fastflow.rounding`): of pictures in which neighbouring pixels are nearly
alike that loses a sixth of what rounding each by itself does, of mere noise a fifth more. Products are summed
in float32, so else nothing is rounded but the sum. Where the map at which a graph is parted, so that its
first layers stay in float32 (`openvino_split`), is picked from such sums alone, by ReLU and maximum pooling,
it is the same whether they are rounded before or after: the graph need not be parted. So it is with ResNets.
What it gains is in docs/performance.md.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import openvino as ov
import openvino.opset13 as op
import torch
from numpy.typing import NDArray

from flows.fastflow.engines.openvino_convolutions import Convolution, found_in, is_one, users_of, value_of
from flows.fastflow.engines.openvino_maps import channels_first
from flows.fastflow.engines.openvino_parts import added_exactly, constant
from flows.fastflow.engines.openvino_split import joint
from flows.fastflow.rounding import gram, probe, round_together

# Made-up pictures by which weights are rounded, and their sides: with three times as many of them, or of four
# times the side, what is lost of other such pictures is the same.
_PROBES: Final = 8
_SIDE: Final = 64
# What a convolution of normalised pixels may differ by from one of pixels, as a share of their deviation.
_DIFFER: Final = 1e-5
# Of operations that give one of the numbers they are given, and keep those in order that are rounded.
_PICK: Final = ("Relu", "MaxPool")


def stem_in_bfloat16(core: Any, settings: Mapping[str, Any], model: Any, size: tuple[int, int]) -> bool:
    """Have the convolution of pixels computed so, in place, if of its sums alone the map to part at is.

    Args:
        core: OpenVINO's.
        settings: to compute by in float32 what is done to pixels.
        model: a backbone for one picture, (1, height, width, 3) uint8.
        size: (height, width) of the pictures.

    Returns:
        Whether it is; else nothing was changed.
    """
    until = joint(model, size)
    stem = next(iter(found_in(model)), None)
    if until is None or stem is None or not _leads_to(stem, until) or not _is_rounded(until):
        return False
    normalised = _normalisation(core, settings, stem, model, size)
    if normalised is None:
        return False
    gain, offset = normalised
    # What zeros around the picture stand for, to half a grey value.
    middle = np.round(-offset / gain)
    if (abs(middle - 127.5) > 128.5).any():
        return False
    weights = stem.weights[0] * gain.reshape(-1, 1, 1)
    bias = (stem.weights[0] * (offset + middle * gain).reshape(-1, 1, 1)).sum((1, 2, 3))
    if stem.bias is not None:
        bias += stem.bias
    how = stem.node.get_attributes()
    # Before channels are first: then nothing is laid out anew.
    pixels = op.subtract(op.convert(model.inputs[0].get_node(), np.float32), constant(middle))
    found = op.convolution(
        channels_first(pixels),
        op.constant(_rounded(weights, middle, how)),
        how["strides"],
        how["pads_begin"],
        how["pads_end"],
        how["dilations"],
    )
    found = added_exactly(found, bias.astype(np.float32))
    stem.after.output(0).replace(found.output(0))
    model.validate_nodes_and_infer_types()
    return True


def _rounded(
    weights: NDArray[np.float64], middle: NDArray[np.float64], how: Mapping[str, Any]
) -> NDArray[np.float32]:
    """Weights (O, 3, height, width) for pixels that something was taken off of, as bfloat16 holds them."""
    probes = np.stack([probe(number, (_SIDE, _SIDE)) for number in range(_PROBES)])
    # Of integers float64 adds up every digit, however many threads do: every start finds the same weights.
    planes = torch.from_numpy(probes - middle).permute(0, 3, 1, 2)
    place = {"stride": how["strides"], "padding": how["pads_begin"], "dilation": how["dilations"]}
    covered = gram(planes, 1, weights.shape[2:], **place)
    flat = torch.from_numpy(weights.reshape(1, len(weights), -1)).float()
    return round_together(flat, covered).numpy().reshape(weights.shape)


def _leads_to(stem: Convolution, until: Any) -> bool:
    """Whether a map is picked from a convolution's sums, and nobody else needs them."""
    node = stem.after
    if stem.node.get_type_name() != "Convolution":
        return False
    while node.get_name() != until.get_name():
        users = users_of(node)
        if len(users) != 1 or users[0].get_type_name() not in _PICK:
            return False
        [node] = users
    return True


def _is_rounded(until: Any) -> bool:
    """Whether who takes a map in a graph of its own rounds it first: convolutions, and sums with another map.

    A normalisation would take it in float32: of a map that lies far from 0 it is what shows low contrast.
    """

    def rounds(user: Any) -> bool:
        kind, given = user.get_type_name(), user.input_values()
        if kind == "Multiply":
            return any(map(is_one, given)) and _is_rounded(user)
        if kind == "Add":
            return all(value_of(value) is None for value in given)
        return kind in ("Convolution", "GroupConvolution")

    return all(map(rounds, users_of(until)))


def _normalisation(
    core: Any, settings: Mapping[str, Any], stem: Convolution, model: Any, size: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """What each channel of pixels is multiplied by before the convolution and what is added then, (3,) each.

    None where anything else is done to them.
    """
    port = stem.node.input_value(0)
    if port.get_partial_shape() != ov.PartialShape([1, 3, *size]):
        return None
    picture = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
    asked = ov.Model([op.result(port)], model.get_parameters()).clone()
    [found] = core.compile_model(asked, "CPU", dict(settings))(picture).values()
    given = picture[0].transpose(2, 0, 1).reshape(3, -1).astype(np.float64)
    rows = found.reshape(3, -1).astype(np.float64)
    gain, offset = np.array([np.polyfit(x, y, 1) for x, y in zip(given, rows, strict=True)]).T
    errors = np.abs(gain[:, None] * given + offset[:, None] - rows).max(1)
    return (gain, offset) if gain.all() and (errors <= _DIFFER * rows.std(1)).all() else None
