"""From latents to an anomaly map, and from there to one score per image."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor


class ScoreRule(BaseModel):
    """How an image's score is taken from its pixels; recorded in the bundle."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    top_fraction: float = Field(
        default=0.01, gt=0, le=1, description="share of the most anomalous pixels that are averaged"
    )
    energy_floor: float = Field(
        default=0.01, gt=0, description="energy below which scales are no longer told apart"
    )


def energies(latents: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Energy of every pixel at every scale, q = 1/2 mean_C z^2, brought to the input size.

    Args:
        latents: per scale (N, C_i, H_i, W_i).
        size: (height, width) of the result.

    Returns:
        (N, S, height, width), S scales; near 1/2 where the part looks like the training set.
    """
    maps = [0.5 * z.square().mean(1, keepdim=True) for z in latents]
    up = [F.interpolate(q, size=size, mode="bilinear", align_corners=False) for q in maps]
    return torch.cat(up, 1)


def anomaly_map(q: Tensor, region: Tensor | None = None) -> Tensor:
    """The map that people look at: -log mean_S exp(-q), a soft minimum over the scales.

    It ranks pixels as the published mean of -exp(-q) does (arXiv 2111.07677 and its implementations), being a
    monotone function of it, but does not round to a constant where every scale is far from normal. A pixel
    counts as far as its most ordinary scale allows, which keeps the coarse scales' wide halos out of the map.

    Args:
        q: (N, S, H, W), from `energies`.
        region: (N, H, W) bool, the region of interest, outside which the map is 0; by default everything.

    Returns:
        (N, H, W), 0 or more.
    """
    # Rounding can leave -1e-7 where every q is 0.
    scores = (math.log(q.shape[1]) - torch.logsumexp(-q, 1)).clamp_min(0)
    return scores if region is None else scores.masked_fill(~region, 0)


def image_score(q: Tensor, rule: ScoreRule, region: Tensor | None = None) -> Tensor:
    """One score per image: log(1 + q / floor), averaged over scales and the most anomalous pixels.

    Unlike the map, a rise in any one scale raises it, however strong the defect is already: the score keeps
    ranking where colours have long saturated. The logarithm keeps the coarsest scale, whose energies vary
    most, from drowning the others. Finite up to q = 1e36, and 0 only where every q is 0.

    A region of interest sets the pixels outside it to 0 and still averages as many as without it, so that it
    can only lower the score: the false-reject rate calibrated on whole pictures remains an upper bound.

    Args:
        q: (N, S, H, W), from `energies`.
        rule: the share of pixels, and the floor.
        region: (N, H, W) bool, the region of interest; by default everything.

    Returns:
        (N,).
    """
    pixels = (q / rule.energy_floor).log1p().mean(1)
    if region is not None:
        pixels = pixels.masked_fill(~region, 0)
    pixels = pixels.flatten(1)
    k = max(1, round(rule.top_fraction * pixels.shape[1]))
    # Sorted, because a sum rounds according to its order: a region could then raise a score by a last bit.
    return pixels.topk(k, 1, sorted=True).values.mean(1)
