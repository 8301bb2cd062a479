"""Outputs of a head for tiles, and the scores and maps computed from them."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flows.fastflow.config import ScoreRule
from flows.fastflow.imaging.blending import TileBlender
from flows.fastflow.imaging.region_masks import RegionMasks
from flows.fastflow.model.learned import merge_descriptions
from flows.fastflow.scoring.cpu_scoring import PixelPlanes, image_part, score_planes
from flows.fastflow.scoring.map_and_score import anomaly_map, image_parts, image_score

NOT_NUMBERS: Final = "the model's energies of an image are not numbers"


class NotNumbersError(ValueError):
    """A head returns NaN for an image: the model is damaged."""


class TileOutputs(NamedTuple):
    """Outputs of a head for N tiles, or for N images blended from tiles.

    Attributes:
        pixels: (N, 2 S, height, width), see `map_and_score.pixel_energies`.
        image: (N, S'), see `fused.Energies`.
        moments: (N, S, 2), mean and mean square of each tile's map at each scale.
        description: (N, 2 C + S), see `learned.describe`; None if the head does not describe.
    """

    pixels: Tensor
    image: Tensor
    moments: Tensor
    description: Tensor | None


def merge_tiles(
    blender: TileBlender,
    image: Tensor,
    moments: Tensor,
    description: Tensor | None,
    channels: Sequence[int],
) -> TileOutputs:
    """Merge the outputs of an image's tiles; the most anomalous tile gives the whole image's energies."""
    return TileOutputs(
        blender.result(),
        image.amax(0, keepdim=True),
        moments.mean(0, keepdim=True),
        None if description is None else merge_descriptions(description, channels),
    )


def score_on_cpu(
    pixels: Iterable[PixelPlanes],
    images: Tensor,
    rule: ScoreRule,
    masks: RegionMasks,
    learned: Tensor | None,
) -> list[tuple[float, NDArray[np.float32]]]:
    """Compute scores and maps on the CPU, see `score_planes`."""
    rows = zip(pixels, images.numpy(), masks, learned_list(learned, len(images)), strict=True)
    return [score_planes(planes, image, rule, mask, part) for planes, image, mask, part in rows]


def score_on_device(
    outputs: TileOutputs, rule: ScoreRule, masks: Tensor | None, learned: Tensor | None
) -> list[tuple[float, NDArray[np.float32]]]:
    """Compute scores and maps on the device of the energies, such as a GPU.

    Raises:
        NotNumbersError: a score or a map has NaN. A check of the energies would wait for the GPU once more.
    """
    flow, products = outputs.pixels.chunk(2, 1)
    scores = image_score(flow, rule, outputs.image, masks, learned=learned).cpu().numpy()
    maps = anomaly_map(products, rule, masks).cpu().numpy()
    if np.isnan(scores).any() or np.isnan(maps).any():
        raise NotNumbersError(NOT_NUMBERS)
    return list(zip(scores.tolist(), maps, strict=True))


def unmasked_image_parts(
    images: Tensor, rule: ScoreRule, masks: RegionMasks, learned: Tensor | None
) -> list[float | None]:
    """Compute the parts of whole images in their scores; None if a mask excludes the part.

    They equal the parts within the scores to the last bit, because callers subtract them again.
    """
    if images.device.type == "cpu":
        rows = zip(images.numpy(), learned_list(learned, len(images)), strict=True)
        parts = [image_part(image, rule) + part for image, part in rows]
    else:
        parts = image_parts(images, rule, learned).tolist()
    return [part if mask is None or mask.all() else None for part, mask in zip(parts, masks, strict=True)]


def learned_list(learned: Tensor | None, count: int) -> list[float]:
    """Return the learned parts of images, 0 without a learned part."""
    return [0.0] * count if learned is None else learned.tolist()


def stack_masks(masks: RegionMasks, size: tuple[int, int], device: torch.device) -> Tensor | None:
    """Stack masks to (n, height, width) on a device; None if no image has one."""
    if all(mask is None for mask in masks):
        return None
    everything = np.ones(size, np.bool_)
    stacked = np.stack([everything if mask is None else mask for mask in masks])
    return torch.from_numpy(stacked).to(device)
