"""Weights of convolutions rounded to bfloat16 together, so that what they compute hardly changes.

Each weight rounded to its nearest number adds an error of its own to a sum. Rounded one after the other,
those that are left can take up what those before did wrong, as far as their inputs go together: the least
squares of what a convolution gives (GPTQ: Frantar et al. 2022, arXiv 2210.17323, algorithm 1, after Optimal
Brain Quantization, Frantar and Alistarh 2022, arXiv 2208.11580, section 4). Which inputs go together is asked
of made-up pictures, so a backbone is rounded in the same way for all categories, and none of their pictures
is used up. What it gains is in docs/experiments.md, 17.
"""

import functools
from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

# Of all that decides what comes out: nothing that another version has rounded is used.
VERSION: Final = 1
# Made-up pictures that inputs are taken from.
PROBES: Final = 24
# Of all convolutions that are rounded so the third powers of their inputs together, at most: as many steps it
# takes, and minutes beyond.
_MOST_WORK: Final = 1e11
# Bytes of Gram matrices that are held at a time; the made-up pictures are computed once more for others.
_HELD: Final = 256 * 2**20
# Of the mean of a Gram matrix's diagonal, added to it: inputs that hardly vary decide nothing.
_DAMPING: Final = 0.01
# Positions of a picture that a convolution's inputs are taken from, at most; by chance, as every so many-th
# of a row might always lie at its edge.
_POSITIONS: Final = 1024
# Columns that are rounded before those behind them are made up to; of the same result at any number.
_BLOCK: Final = 128


def probe(number: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A made-up picture (height, width, 3) uint8: noise, of a power that falls with the cube of frequency.

    That is a little steeper than of photographs, whose falls with the square (Field 1987, J. Opt. Soc. Am. A
    4). The same number gives the same picture.
    """
    height, width = size
    chance = np.random.default_rng(number)
    picture = np.zeros((height, width, 3), np.float32)
    scale = 1
    while scale < max(size):
        sides = (-(-height // scale), -(-width // scale))
        grain = chance.normal(size=(*sides, 1)) + 0.3 * chance.normal(size=(*sides, 3))
        coarse = grain.astype(np.float32) * np.float32(scale**0.5)
        picture += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        scale *= 2
    contrast, light = chance.uniform(20, 60), chance.uniform(60, 190)
    found: NDArray[np.uint8] = np.clip(picture / picture.std() * contrast + light, 0, 255).astype(np.uint8)
    return found


def gram(
    x: Tensor,
    groups: int,
    kernel: Sequence[int],
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """How a convolution's inputs go together: the Gram matrices of what its kernel covers.

    Args:
        x: (N, C, H, W).
        groups: of its channels.
        kernel: its height and width.
        stride: down and across, as the next two.
        padding: on both sides.
        dilation: of the kernel.

    Returns:
        (groups, K, K) float64 with K = C / groups x height x width, of weights (groups, out / groups, K).
    """
    n, channels = x.shape[:2]
    if tuple(kernel) == (1, 1) and not any(padding):
        covered = x[:, :, :: stride[0], :: stride[1]].flatten(2)  # which unfolding would copy
    else:
        how = {"dilation": tuple(dilation), "padding": tuple(padding), "stride": tuple(stride)}
        covered = F.unfold(x, tuple(kernel), **how)
    if covered.shape[2] > _POSITIONS:
        covered = covered[:, :, _chosen(covered.shape[2]).to(x.device)]
    k = channels // groups * kernel[0] * kernel[1]
    columns = covered.reshape(n, groups, k, -1).permute(1, 2, 0, 3).reshape(groups, k, -1)
    return (columns @ columns.transpose(1, 2)).double().cpu()


@functools.cache
def _chosen(positions: int) -> Tensor:
    chance = np.random.default_rng(0)
    return torch.from_numpy(np.sort(chance.choice(positions, _POSITIONS, replace=False)))


def portions(shapes: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Which convolutions are rounded together, and of which the Gram matrices are taken at a time.

    Args:
        shapes: of their Gram matrices: groups and inputs, K.

    Returns:
        Places in `shapes`, those of few inputs first; none of those for which there is no time.
    """
    found: list[list[int]] = []
    work, held = 0.0, _HELD
    for place in sorted(range(len(shapes)), key=lambda i: shapes[i][1]):
        groups, inputs = shapes[place]
        work += groups * float(inputs) ** 3
        if work > _MOST_WORK:
            break
        nbytes = 8 * groups * inputs**2
        held += nbytes
        if held > _HELD:
            found.append([])
            held = nbytes
        found[-1].append(place)
    return found


def round_together(weight: Tensor, gram: Tensor) -> Tensor:
    """Weights that bfloat16 holds, near those given, whose convolution gives nearly the same.

    Args:
        weight: (G, O, K) float32.
        gram: (G, K, K) float64, of G groups of inputs, see `gram`.

    Returns:
        (G, O, K) float32, of numbers that bfloat16 has. Where inputs or weights are no finite numbers, the
        nearest of each.
    """
    if not (gram.isfinite().all() and weight.isfinite().all()):
        return nearest(weight)
    diagonal = gram.diagonal(dim1=1, dim2=2)
    # An input that was always 0 still has a weight to be rounded.
    damping = (_DAMPING * diagonal.mean(1, keepdim=True)).clamp_min(torch.finfo(torch.float32).tiny)
    damped = gram + torch.diag_embed(damping.expand_as(diagonal))
    # The inverse is U' U with U upper triangular, so what is damped is R R' with R the inverse of U.
    root = torch.linalg.cholesky(damped.flip(1, 2)).flip(1, 2)
    ones = torch.eye(root.shape[1], dtype=root.dtype)
    upper = torch.linalg.solve_triangular(root, ones, upper=True).numpy()
    # By numpy: these are many small steps, for each of which torch's threads would wait for each other.
    left, found = weight.double().numpy().copy(), np.empty(weight.shape, np.float32)
    count = weight.shape[2]
    for start in range(0, count, _BLOCK):
        end = min(start + _BLOCK, count)
        errors = np.empty_like(left[:, :, start:end])
        for k in range(start, end):
            found[:, :, k] = nearest(torch.from_numpy(left[:, :, k]).float())
            error = (left[:, :, k] - found[:, :, k]) / upper[:, None, k, k]
            left[:, :, k + 1 : end] -= error[:, :, None] * upper[:, None, k, k + 1 : end]
            errors[:, :, k - start] = error
        left[:, :, end:] -= errors @ upper[:, start:end, end:]
    return torch.from_numpy(found)


def nearest(x: Tensor) -> Tensor:
    """Float32 numbers, each rounded to the nearest that bfloat16 has."""
    return x.to(torch.bfloat16).float()
