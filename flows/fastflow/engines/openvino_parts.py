"""What graphs for OpenVINO are made of here: constants, and names that do not change from start to start."""

from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as op


def constant(value: Any, kind: type[np.generic] = np.float32) -> Any:
    """A constant of a graph."""
    return op.constant(np.asarray(value, kind))


def numbered(model: ov.Model) -> ov.Model:
    """The model with names by its own order of nodes, inputs and outputs.

    OpenVINO numbers them through the life of a process, and finds what it has compiled by the names too: no
    two starts would find it.
    """
    for i, node in enumerate(model.get_ordered_ops()):
        node.set_friendly_name(f"{i}")
    for i, port in enumerate((*model.inputs, *model.outputs)):
        port.get_tensor().set_names({f"{i}"})
    return model
