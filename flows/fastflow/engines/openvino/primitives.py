"""Small helpers for OpenVINO's graphs, tensors and requests."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, cast

import numpy as np
import openvino as ov
import openvino.opset13 as op
from numpy.typing import NDArray


def constant(value: Any, kind: type[np.generic] = np.float32) -> Any:
    """A constant of a graph."""
    return op.constant(np.asarray(value, kind))


def wait_for_all(requests: Iterable[Any]) -> None:
    """Wait for requests that may have failed: one that still runs writes to memory that is freed."""
    for request in requests:
        with suppress(Exception):  # one that failed says so again
            request.wait()


def infer(request: Any) -> None:
    """Compute without a copy of the results, which are in `request.output_tensors`."""
    request.infer(share_outputs=True)


def shared_tensor(array: NDArray[Any]) -> Any:
    """A tensor over the array's own memory."""
    return ov.Tensor(cast(Any, array), shared_memory=True)
