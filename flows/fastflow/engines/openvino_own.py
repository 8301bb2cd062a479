"""A head's graphs that are its own: with its weights in them, and for one picture each."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.fastflow.engines.openvino_parts import shared


class OwnGraphs:
    """Computes a head picture by picture, those of a batch beside each other, each by a share of the threads.

    What one picture's maps become then stays in a core's own cache, and no thread waits for the others after
    every layer. A picture gives the same, to the last bit of float32, whatever batch it comes in. To be
    called from one thread at a time.

    Args:
        alone: the graph for one picture by all threads.
        together: the same by a share of them, in several streams; None computes one picture after the other.
    """

    def __init__(self, alone: Any, together: Any | None) -> None:
        self._shapes = [tuple(output.shape)[1:] for output in alone.outputs]
        self._alone = [alone.create_infer_request()]
        # As OpenVINO has them: not more than the machine has cores.
        self._streams = int(together.get_property("NUM_STREAMS")) if together is not None else 1
        # Twice as many, so that the next pictures wait for the threads and not the threads for them.
        n = 2 * self._streams if self._streams > 1 else 0
        self._together = [together.create_infer_request() for _ in range(n)] if together is not None else []

    def __call__(self, maps: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """What the graph gives, each (N, ...), of maps (N, C_i, H_i, W_i)."""
        n = len(maps[0])
        found = [np.empty((n, *shape), np.float32) for shape in self._shapes]
        together = n - n % self._streams if self._together else 0
        _compute(self._together, maps, found, range(together))
        _compute(self._alone, maps, found, range(together, n))
        return found


def _compute(
    requests: Sequence[Any],
    maps: Sequence[NDArray[np.float32]],
    found: Sequence[NDArray[np.float32]],
    pictures: range,
) -> None:
    """Of some pictures of a batch, in turns by requests."""
    try:
        for i in pictures:
            request = requests[i % len(requests)]
            request.wait()
            for port, whole in enumerate(maps):
                request.set_input_tensor(port, shared(whole[i : i + 1]))
            for port, whole in enumerate(found):
                request.set_output_tensor(port, shared(whole[i : i + 1]))
            request.start_async()
        for request in requests:
            request.wait()
    except BaseException:
        # Others may be at work still, on memory that goes with the batch.
        for request in requests:
            with suppress(Exception):  # the one that failed has said so
                request.wait()
        raise
