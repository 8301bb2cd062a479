"""Outputs of a head for tiles, and the scores and maps computed from them."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flows.fastflow.config import ScoreRule
from flows.fastflow.imaging.blending import TileBlender
from flows.fastflow.imaging.geometry import TileLayout
from flows.fastflow.imaging.region_masks import RegionMasks, require_usable_masks
from flows.fastflow.inference.scored_image import ScoredImage, feature_statistics
from flows.fastflow.model.learned import LearnedPart, merge_descriptions
from flows.fastflow.scoring.cpu_scoring import PixelPlanes, combine_scales, image_part, score_planes
from flows.fastflow.scoring.map_and_score import anomaly_map, image_parts, image_score

NOT_NUMBERS: Final = "the model's energies of an image are not numbers"


class NotNumbersError(ValueError):
    """A head returns NaN for an image: the model is damaged."""


class TileOutputs(NamedTuple):
    """Outputs of a head for N tiles, or for N images.

    Attributes:
        pixels: (N, 2 S, height, width), see `map_and_score.pixel_energies`; or the planes of N images that
            are one input each.
        image: (N, S'), see `fused.Energies`.
        moments: (N, S, 2), mean and mean square of each tile's map at each scale.
        description: (N, 2 C + S), see `learned.describe`; None if the head does not describe.
    """

    pixels: Tensor | Iterable[PixelPlanes]
    image: Tensor
    moments: Tensor
    description: Tensor | None


class TileMerger:
    """Outputs of an image from those of its tiles.

    Args:
        layout: positions of the tiles.
        channels: channels of each scale.
    """

    def __init__(self, layout: TileLayout, channels: Sequence[int], device: torch.device) -> None:
        self._channels = channels
        self._blender = TileBlender(layout, 2 * len(channels), device)
        self._tiles: list[TileOutputs] = []

    def add(self, tiles: TileOutputs, rows: slice = slice(None)) -> None:
        """Add the next tiles, in the layout's order: rows of outputs."""
        self._blender.add(cast(Tensor, tiles.pixels)[rows])
        described = None if tiles.description is None else tiles.description[rows]
        self._tiles.append(TileOutputs((), tiles.image[rows], tiles.moments[rows], described))

    def result(self) -> TileOutputs:
        """Merge the outputs; the most anomalous tile gives the whole image's energies."""
        described = [one.description for one in self._tiles if one.description is not None]
        return TileOutputs(
            self._blender.result(),
            torch.cat([one.image for one in self._tiles]).amax(0, keepdim=True),
            torch.cat([one.moments for one in self._tiles]).mean(0, keepdim=True),
            merge_descriptions(torch.cat(described), self._channels) if described else None,
        )


def score_images(
    outputs: TileOutputs,
    size: tuple[int, int],
    rule: ScoreRule,
    masks: RegionMasks,
    learned_part: LearnedPart | None,
) -> list[ScoredImage]:
    """Score N images with maps of one size, (height, width).

    Raises:
        ValueError: a mask is not usable.
        NotNumbersError: see `_score_on_device`.
    """
    require_usable_masks(masks, size)
    learned = None
    if learned_part is not None and outputs.description is not None:
        learned = cast(Tensor, learned_part(outputs.description))
    added = [0.0] * len(outputs.image) if learned is None else learned.tolist()
    pixels = outputs.pixels
    if isinstance(pixels, Tensor) and pixels.device.type != "cpu":
        results = _score_on_device(pixels, outputs.image, rule, _stack_masks(masks, size, pixels), learned)
        parts = image_parts(outputs.image, rule, learned).tolist()
    else:
        if isinstance(pixels, Tensor):
            pixels = (combine_scales(list(planes), rule) for planes in pixels.numpy())
        images = outputs.image.numpy()
        rows = zip(pixels, images, masks, added, strict=True)
        results = [score_planes(planes, image, rule, mask, part) for planes, image, mask, part in rows]
        # Equal to the parts within the scores to the last bit, because callers subtract them again.
        parts = [image_part(image, rule) + part for image, part in zip(images, added, strict=True)]
    parts = [part if mask is None or mask.all() else None for part, mask in zip(parts, masks, strict=True)]
    statistics = feature_statistics(*outputs.moments.unbind(2))
    described: Iterable[NDArray[np.float32] | None] = [None] * len(parts)
    if outputs.description is not None:
        # Without the weights' sums, which only merge tiles.
        described = outputs.description[:, : -outputs.moments.shape[1]].cpu().numpy()
    each = zip(results, parts, statistics, added, described, strict=True)
    return [ScoredImage(*result, *one) for result, *one in each]


def _score_on_device(
    pixels: Tensor, images: Tensor, rule: ScoreRule, masks: Tensor | None, learned: Tensor | None
) -> list[tuple[float, NDArray[np.float32]]]:
    """Compute scores and maps on the device of the energies, such as a GPU.

    Raises:
        NotNumbersError: a score or a map has NaN. A check of the energies would wait for the GPU once more.
    """
    flow, products = pixels.chunk(2, 1)
    scores = image_score(flow, rule, images, masks, learned=learned).cpu().numpy()
    maps = anomaly_map(products, rule, masks).cpu().numpy()
    if np.isnan(scores).any() or np.isnan(maps).any():
        raise NotNumbersError(NOT_NUMBERS)
    return list(zip(scores.tolist(), maps, strict=True))


def _stack_masks(masks: RegionMasks, size: tuple[int, int], pixels: Tensor) -> Tensor | None:
    """Stack masks to (n, height, width) on the device of the pixels; None if no image has one."""
    if all(mask is None for mask in masks):
        return None
    everything = np.ones(size, np.bool_)
    stacked = np.stack([everything if mask is None else mask for mask in masks])
    return torch.from_numpy(stacked).to(pixels.device)
