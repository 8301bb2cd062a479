"""How a backbone hands maps to heads that are computed in bfloat16: rounded, and with channels last.

So the convolutions of both have them, and nothing is laid out anew between the two graphs: in float32 and
with channels first that took a ninth of the time of a resnet18. What rounding adds to the features' noise is
in docs/experiments.md, 24. Outside of graphs such maps are tensors (N, C, H, W) of bfloat16, or arrays
(N, H, W, C) of uint16, since numpy knows no bfloat16.
"""

from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as op
import torch
from numpy.typing import NDArray
from torch import Tensor

from flows.fastflow.engines.openvino_parts import constant


def hand_over(part: Any, maps: int) -> Any:
    """A part of a backbone's graph whose first outputs, (N, C, H, W), leave as (N, H, W, C) bfloat16.

    Args:
        part: the graph; used up, for what is returned is made of its nodes.
        maps: how many outputs; the others stay as they are.
    """
    results = part.get_results()
    rounded = [op.result(channels_last(op.convert(x.input_value(0), "bf16"))) for x in results[:maps]]
    return ov.Model([*rounded, *results[maps:]], part.get_parameters())


def taken_over(size: tuple[int, ...]) -> tuple[Any, Any]:
    """An input for maps (N, C, H, W) that were handed over, and they as (N, H, W, C) float32."""
    n, c, h, w = size
    given = op.parameter([n, h, w, c], ov.Type.bf16)
    return given, op.convert(given, np.float32)


def channels_first(x: Any) -> Any:
    """(N, H, W, C) as (N, C, H, W), without a copy where a convolution is next."""
    return op.transpose(x, constant([0, 3, 1, 2], np.int64))


def channels_last(x: Any) -> Any:
    """(N, C, H, W) as (N, H, W, C)."""
    return op.transpose(x, constant([0, 2, 3, 1], np.int64))


def mean_over_positions(x: Any) -> Any:
    """Of each channel of (N, H, W, C): (N, C), added up in float32.

    By a product: of a reduction OpenVINO would have x in float32, all the way from where it comes in.
    """
    _, h, w, c = x.shape
    rows = op.reshape(x, constant([-1, h * w, c], np.int64), False)
    sums = op.matmul(op.constant(np.ones((1, 1, h * w), np.float32)), rows, False, False)
    return op.multiply(op.squeeze(sums, constant([1], np.int64)), constant(1 / (h * w)))


def bits_of(maps: Tensor) -> NDArray[np.uint16]:
    """Maps (N, C, H, W) as such an input takes them, (N, H, W, C): not copied if they were handed over."""
    rounded = maps.to(torch.bfloat16).permute(0, 2, 3, 1).contiguous()
    return rounded.view(torch.uint16).numpy()


def maps_of(bits: NDArray[np.uint16]) -> Tensor:
    """Maps (N, C, H, W) that share their memory with what a backbone has handed over, (N, H, W, C)."""
    return torch.from_numpy(bits).view(torch.bfloat16).permute(0, 3, 1, 2)
