"""Split of a backbone's graph in two parts, so that the first layers stay in float32.

Defects have low contrast, which rounding loses: the stem and the first blocks cause 55 to 80 % of the noise
that bfloat16 adds to the features of tf_efficientnet_lite0 (docs/research/precision.md).
"""

import math
from collections.abc import Iterable
from typing import Any

import openvino as ov
from openvino import opset13

from flows.fastflow.model.head import keeps_float32


def split_graph(model: Any, size: tuple[int, int]) -> tuple[Any, Any] | None:
    """Split a graph at the narrowest of the first maps of a quarter of the image's size, rounded up.

    Args:
        model: a backbone with one input; its nodes move to the parts.
        size: (height, width) of the images.

    Returns:
        Two parts: the last output of the first is the only input of the second, and the other outputs are
        those of the model, in order. None if no such map alone determines the rest.
    """
    order = model.get_ordered_ops()
    parting = _joint(model, size)
    if parting is None:
        return None
    names = [op.get_name() for op in order]
    before = set(names[: names.index(parting.get_name()) + 1])
    results = model.get_results()
    is_early = [_source(result).get_name() in before for result in results]
    n = sum(is_early)
    # Outputs come in the order of computation.
    if n == len(results) or not all(is_early[:n]):
        return None
    early, late = results[:n], results[n:]
    port = parting.output(0)
    rest = opset13.parameter(port.get_partial_shape(), port.get_element_type())
    for target in port.get_target_inputs():
        if not _leads_out(target.get_node()):
            target.replace_source_output(rest.output(0))
    first = ov.Model([*early, opset13.result(port)], model.get_parameters())
    return first, ov.Model(late, [rest])


def _joint(model: Any, size: tuple[int, int]) -> Any | None:
    """Find the operation whose map to split at; None if there is none.

    Among the maps of the first size that is small enough, it is the one of the fewest numbers, the first if
    several are equal. No earlier map may be needed after it.
    """
    order = model.get_ordered_ops()
    place = {op.get_name(): i for i, op in enumerate(order)}
    # For operations that depend on the image: the last place that needs them.
    needed: dict[str, int] = {}
    for i, op in enumerate(order):
        fed = [n for n in _inputs(op) if n in needed]
        if op.get_type_name() == "Parameter" or fed:
            needed[op.get_name()] = i
            if not _leads_out(op):
                needed.update(dict.fromkeys(fed, i))
    best, least, sides = None, 0, None
    for i, op in enumerate(order):
        shape = _map_shape(op) if op.get_name() in needed and not _leads_out(op) else None
        if shape is None or keeps_float32(shape[1:], size):
            continue
        if any(place[n] < i < until for n, until in needed.items()):
            continue
        if sides is not None and shape[1:] != sides:
            break
        sides = shape[1:]
        if best is None or math.prod(shape) < least:
            best, least = op, math.prod(shape)
    return best


def _map_shape(op: Any) -> tuple[int, int, int] | None:
    """Return (C, H, W) of an operation with one float32 map (N, C, H, W) as its output, else None."""
    if op.get_output_element_type(0) != ov.Type.f32:
        return None
    # Maximum pooling also returns indices, which must be unused.
    if any(op.output(i).get_target_inputs() for i in range(1, op.get_output_size())):
        return None
    shape = op.get_output_partial_shape(0)
    if shape.rank.is_dynamic or shape.rank.get_length() != 4:
        return None
    if any(shape[i].is_dynamic for i in (1, 2, 3)):
        return None
    return shape[1].get_length(), shape[2].get_length(), shape[3].get_length()


def _inputs(op: Any) -> Iterable[str]:
    return (value.get_node().get_name() for value in op.input_values())


def _leads_out(op: Any) -> bool:
    """Check that an operation is a result of the model, or a conversion only for results."""
    if op.get_type_name() == "Result":
        return True
    if op.get_type_name() != "Convert":
        return False
    users = [target.get_node() for target in op.output(0).get_target_inputs()]
    return bool(users) and all(user.get_type_name() == "Result" for user in users)


def _source(result: Any) -> Any:
    """Return the operation of a result, before a conversion only for it."""
    node = result.input_value(0).get_node()
    return node.input_value(0).get_node() if _leads_out(node) else node
