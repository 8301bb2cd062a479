"""What graphs for OpenVINO are made of here, and how they are asked without copies."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final, cast

import numpy as np
import openvino as ov
import openvino.opset13 as op
from numpy.typing import NDArray

# A clamp at it changes no number, and keeps OpenVINO from taking what is added next for a bias.
_FAR: Final = 1e30


def constant(value: Any, kind: type[np.generic] = np.float32) -> Any:
    """A constant of a graph."""
    return op.constant(np.asarray(value, kind))


def added_exactly(x: Any, bias: NDArray[np.float32]) -> Any:
    """A number for each channel added to a map, in float32.

    As a convolution's bias OpenVINO would take it in the format of what comes out: rounded, the same error at
    every position. After something that is no sum it is added in float32, in the same pass.
    """
    return op.add(op.clamp(x, -_FAR, _FAR), op.constant(bias.reshape(1, -1, 1, 1)))


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


def streams_of(graph: Any) -> int:
    """How many a compiled graph has, as OpenVINO made them: not more than the machine has cores."""
    return int(graph.get_property("NUM_STREAMS"))


def let_end(requests: Iterable[Any]) -> None:
    """Wait for requests, whatever became of them: at work still, they write to memory that goes."""
    for request in requests:
        with suppress(Exception):  # one that failed says so again
            request.wait()


def infer(request: Any) -> None:
    """Compute; what comes out is in `request.output_tensors`."""
    request.infer(share_outputs=True)  # or it would copy them, for nobody


def shared(array: NDArray[Any]) -> Any:
    """A tensor over the array's own memory; one of uint16 holds bfloat16, which numpy does not know."""
    if array.dtype == np.uint16:
        return ov.Tensor(cast(Any, array), ov.Shape(array.shape), ov.Type.bf16)
    return ov.Tensor(cast(Any, array), shared_memory=True)


def data_of(tensor: Any) -> NDArray[Any]:
    """A tensor's numbers in its own memory, as `shared` takes them."""
    found: NDArray[Any] = tensor.data
    return found.view(np.uint16) if tensor.get_element_type() == ov.Type.bf16 else found
