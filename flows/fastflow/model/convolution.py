"""Convolutions of the conditioners, and their gradients."""

import itertools
from typing import Any, cast

import torch
from torch import Tensor

_BLOCK = 3


def convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve (N, C, H, W), same height and width; channel by channel where kernels have one channel."""
    groups = x.shape[1] // weight.shape[1]
    return torch.conv2d(x, weight, bias, padding=weight.shape[2] // 2, groups=groups)


def convolve_backward(
    of_y: Tensor, x: Tensor, weight: Tensor, *, input_too: bool
) -> tuple[Any, Tensor, Tensor]:
    """Gradients with respect to the input (None where it is not asked for), the weight and the bias."""
    groups = x.shape[1] // weight.shape[1]
    in_blocks = groups > 1 and weight.shape[2] > _BLOCK and x.device.type == "cpu"
    wanted = (input_too, not in_blocks, not in_blocks)
    of_x, of_weight, of_bias = _convolution_gradients(of_y, x, weight, weight.shape[2] // 2, groups, wanted)
    if in_blocks:
        of_weight, of_bias = _kernel_gradient_in_blocks(of_y, x, weight), of_y.sum((0, 2, 3))
    return of_x, of_weight, of_bias


def _kernel_gradient_in_blocks(of_y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """The gradient with respect to kernels of a depthwise convolution, (C, 1, k, k), a block at a time.

    oneDNN is made for this gradient of 3x3 kernels; of 5x5 ones it took 2.5 times as long as the blocks
    together in float32, and 8 times in bfloat16. A block is a 3x3 kernel over a picture that was moved.
    """
    side = weight.shape[2]
    height, width = x.shape[2:]
    padded = torch.nn.functional.pad(x, [side // 2] * 4)
    found, block = torch.empty_like(weight), weight[:, :, :_BLOCK, :_BLOCK]
    # The last one ends with the kernel, and may lie over the one before.
    starts = [*range(0, side - _BLOCK, _BLOCK), side - _BLOCK]
    for i, j in itertools.product(starts, starts):
        moved = padded[:, :, i : i + height + _BLOCK - 1, j : j + width + _BLOCK - 1]
        moved = moved.contiguous(memory_format=torch.channels_last)
        _, of_block, _ = _convolution_gradients(of_y, moved, block, 0, len(weight), (False, True, False))
        found[:, :, i : i + _BLOCK, j : j + _BLOCK] = of_block
    return found


def _convolution_gradients(
    of_y: Tensor, x: Tensor, weight: Tensor, padding: int, groups: int, wanted: tuple[bool, bool, bool]
) -> tuple[Any, Any, Any]:
    found = torch.ops.aten.convolution_backward(
        of_y,
        x,
        weight,
        [len(weight)],
        [1, 1],
        [padding, padding],
        [1, 1],
        False,
        [0, 0],
        groups,
        list(wanted),
    )
    return cast(tuple[Any, Any, Any], found)
