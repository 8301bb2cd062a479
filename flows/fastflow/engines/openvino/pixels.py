"""OpenVINO graph from energies to pixels: `cpu_scoring.pixel_planes` in a third of the time.

OpenVINO computes exponentials, roots and the operations between them in one pass over the pixels, with all
threads. Its interpolation and logarithm are slow on CPUs. So this graph interpolates with matrix products
and avoids the logarithm.
"""

import math
import threading
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import openvino as ov
import openvino.opset13 as op
from numpy.typing import NDArray

from flows.fastflow.config import Upsampling
from flows.fastflow.engines.openvino.primitives import constant, infer, shared_tensor
from flows.fastflow.scoring.cpu_scoring import square_roots
from flows.fastflow.scoring.upsampling import MAX_ENERGY, spline_weights


def build_pixel_graph(
    sizes: Sequence[tuple[int, ...]], size: tuple[int, int], enlarging: Upsampling
) -> ov.Model:
    """Build the graph for inputs of one size.

    Inputs are `Energies.flow`, `Energies.gaussian`, and the Gaussian's share, the floor and the sharpness of
    `ScoreRule`, each (1,). Outputs are the product and the map of `cpu_scoring.PixelPlanes`, each
    (N, height, width).

    Args:
        sizes: sizes of the energies at each scale, (N, H_i, W_i), finest first.
        size: (height, width) of the images.
        enlarging: interpolation of the map, see `ScoreRule`.
    """
    flow, gaussian = ([op.parameter(list(shape), np.float32) for shape in sizes] for _ in range(2))
    share, floor, sharpness = (op.parameter([1], np.float32) for _ in range(3))
    rest = op.subtract(constant(1), share)
    pairs = zip(flow, gaussian, strict=True)
    both = [op.multiply(op.power(q, rest), op.power(e, share)) for q, e in pairs]
    product = _product([_enlarged(x, size, "linear") for x in flow], floor)
    score_map = _map([_enlarged(x, size, enlarging) for x in both], sharpness)
    return ov.Model([product, score_map], [*flow, *gaussian, share, floor, sharpness], "pixels")


def _enlarged(x: Any, size: tuple[int, int], how: Upsampling) -> Any:
    """Interpolate rows and columns with one matrix product each."""
    _, height, width = x.shape
    weights = _linear_weights
    if how == "spline":
        weights, x = spline_weights, op.minimum(x, constant(MAX_ENERGY))
    wide = op.matmul(x, op.constant(weights(width, size[1]).T.copy()), False, False)
    return op.matmul(op.constant(weights(height, size[0])), wide, False, False)


def _linear_weights(n: int, m: int) -> NDArray[np.float32]:
    """Compute the matrix (m, n) of OpenCV's interpolation, which `cpu_scoring` uses."""
    return np.asarray(cv2.resize(np.eye(n, dtype=np.float32), (n, m), interpolation=cv2.INTER_LINEAR))


def _product(planes: Sequence[Any], floor: Any) -> Any:
    total, scale = None, op.divide(constant(1), floor)
    for plane in planes:
        x = op.add(op.multiply(plane, scale), constant(1))
        for _ in range(square_roots(len(planes))):
            x = op.sqrt(x)
        total = x if total is None else op.multiply(total, x)
    return total


def _map(planes: Sequence[Any], sharpness: Any) -> Any:
    """Average the soft minima over all scales and over all but the coarsest.

    See `map_and_score.anomaly_map`.

    A soft minimum over n scales is least - log(total / n) / s, where total is the sum of
    exp(s (least - x)). Another scale changes least, and total by a factor and a term, one of which is 1.
    """
    least, total = planes[0], constant(1)
    shorter = least, total
    for x in planes[1:]:
        shorter = least, total
        least = op.minimum(least, x)
        factor, term = (op.exp(op.multiply(op.subtract(least, y), sharpness)) for y in (shorter[0], x))
        total = op.add(op.multiply(total, factor), term)
    n = len(planes)
    if n == 1:
        return op.maximum(least, constant(0))
    # One logarithm of the product, which lies between 1 and n (n - 1), instead of two.
    logarithm = _logarithm(op.multiply(total, shorter[1]), n * (n - 1))
    logarithm = op.subtract(logarithm, constant(math.log(n * (n - 1))))
    mean = op.multiply(op.add(least, shorter[0]), constant(0.5))
    return op.maximum(
        op.subtract(mean, op.divide(logarithm, op.multiply(sharpness, constant(2)))), constant(0)
    )


def _logarithm(x: Any, largest: float) -> Any:
    """Compute log x for x from 1 to `largest`, in float32 precision up to a hundred.

    log x = 4 log y with y = x^(1/4), and log(y / c) = 2 artanh z with z = (y - c) / (y + c). With c in the
    middle z is small, and five terms of the series suffice.
    """
    c = largest ** (1 / 8)
    y = op.sqrt(op.sqrt(x))
    z = op.divide(op.subtract(y, constant(c)), op.add(y, constant(c)))
    square = op.multiply(z, z)
    series = constant(1 / 9)
    for coefficient in (1 / 7, 1 / 5, 1 / 3, 1):
        series = op.add(op.multiply(series, square), constant(coefficient))
    return op.add(op.multiply(op.multiply(z, series), constant(8)), constant(4 * math.log(c)))


class PixelsRequest:
    """Request for pixels of one batch size; all models share it, because its planes take megabytes."""

    def __init__(self, graph: Any) -> None:
        self._request = graph.create_infer_request()
        self._shapes = [tuple(output.shape) for output in graph.outputs]
        self._lock = threading.Lock()

    def __call__(self, inputs: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        outputs = [np.empty(shape, np.float32) for shape in self._shapes]
        with self._lock:
            for i, x in enumerate(inputs):
                self._request.set_input_tensor(i, shared_tensor(x))
            for i, x in enumerate(outputs):
                self._request.set_output_tensor(i, shared_tensor(x))
            infer(self._request)
        return outputs
