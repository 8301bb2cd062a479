"""Constants, tensors and requests of OpenVINO."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, cast

import numpy as np
import openvino as ov
import openvino.opset13 as op
from numpy.typing import NDArray


def constant(value: Any, kind: type[np.generic] = np.float32) -> Any:
    return op.constant(np.asarray(value, kind))


def wait_for_all(requests: Iterable[Any]) -> None:
    """Wait for requests that may have failed: a running one would write to freed memory."""
    for request in requests:
        with suppress(Exception):  # a failed request raises again
            request.wait()


def infer(request: Any) -> None:
    """Run a request without copying the results, which stay in `request.output_tensors`."""
    request.infer(share_outputs=True)


def shared_tensor(array: NDArray[Any]) -> Any:
    """Create a tensor that shares the array's memory."""
    return ov.Tensor(cast(Any, array), shared_memory=True)
