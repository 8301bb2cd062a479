"""The convolutions of a graph, each with what is added and multiplied to its channels right after it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Convolution:
    """A convolution of two dimensions, by constant weights.

    Attributes:
        node: in the graph.
        place: among the graph's operations.
        weights: (groups, out / groups, in / groups, height, width), with the gain of a normalisation.
        after: the last of what follows and is taken into weights and bias; or the convolution itself.
        bias: (out,), what is added to each channel, or None.
    """

    node: Any
    place: int
    weights: NDArray[np.float32]
    after: Any
    bias: NDArray[np.float32] | None

    @property
    def gram_shape(self) -> tuple[int, int]:
        """Groups and inputs, see `rounding.gram`."""
        return self.weights.shape[0], self.weights[0, 0].size

    @property
    def flat(self) -> Tensor:
        """The weights as (groups, out / groups, inputs)."""
        return torch.from_numpy(self.weights).flatten(2)


def found_in(model: Any, wanted: Callable[[Any], bool] = lambda _: True) -> Iterable[Convolution]:
    """The convolutions whose weights and padding are constant, in the order in which they are computed.

    Args:
        model: the graph.
        wanted: tells by the node alone whether one is; of the others no weights are looked at.
    """
    for place, node in enumerate(model.get_ordered_ops()):
        kind = node.get_type_name()
        if kind not in ("Convolution", "GroupConvolution") or not wanted(node):
            continue
        weights = value_of(node.input_value(1))
        how = node.get_attributes()
        if weights is None or how["auto_pad"] != "explicit" or len(how["strides"]) != 2:
            continue
        if kind == "Convolution":
            weights = weights[None]
        after, bias = _with_bias(node, weights.shape[0] * weights.shape[1])
        normalisation = only_user(after, "BatchNormInference")
        values = (
            [] if normalisation is None else [value_of(normalisation.input_value(i)) for i in range(1, 5)]
        )
        known = [value for value in values if value is not None]
        if normalisation is not None and len(known) == 4:
            gamma, beta, mean, variance = known
            gain = gamma / np.sqrt(variance + np.float32(normalisation.get_attributes()["epsilon"]))
            weights = weights * gain.reshape(*weights.shape[:2], 1, 1, 1)
            after, bias = normalisation, beta + gain * ((0 if bias is None else bias) - mean)
        yield Convolution(node, place, weights, after, bias)


def _with_bias(node: Any, channels: int) -> tuple[Any, NDArray[np.float32] | None]:
    """What a constant for each channel is added by, and the constant; the node alone where there is none."""
    added = only_user(node, "Add")
    if added is None:
        return node, None
    shapes = ((1, channels, 1, 1), (channels, 1, 1))
    values = [value_of(added.input_value(i)) for i in range(2)]
    found = [value for value in values if value is not None and value.shape in shapes]
    return (added, found[0].reshape(-1)) if found else (node, None)


def value_of(port: Any) -> NDArray[np.float32] | None:
    """A float32 constant, perhaps kept in another shape or format; None where it is none."""
    node, shape = port.get_node(), port.get_partial_shape()
    while node.get_type_name() in ("Reshape", "Convert"):
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Constant" or shape.is_dynamic or port.get_element_type() != ov.Type.f32:
        return None
    found: NDArray[np.float32] = node.data.astype(np.float32).reshape(shape.to_shape())
    return found


def is_one(port: Any) -> bool:
    """Whether it is the number 1, by which the frontend multiplies the second part of a sum."""
    factor = value_of(port)
    return factor is not None and factor.ndim == 0 and factor.item() == 1


def users_of(node: Any) -> list[Any]:
    """What takes a node's values."""
    return [target.get_node() for target in node.output(0).get_target_inputs()]


def only_user(node: Any, kind: str) -> Any | None:
    """What alone takes a node's values, if it is of a kind."""
    users = [user for user in users_of(node) if user.get_type_name() != "ShapeOf"]
    return users[0] if len(users) == 1 and users[0].get_type_name() == kind else None
