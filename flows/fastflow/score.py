"""From energies to an anomaly map, and from there to one score per image."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from flows.fastflow.enlarging import LARGEST, Enlarging, spline_weights


class Scoring(BaseModel):
    """How an image's score and its map are taken from energies, but for the Gaussian's share in the map."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    top: float = Field(
        default=0.125,
        gt=0,
        le=1000,
        description="most anomalous positions of each scale that are averaged, over its map's side: 4 of "
        "32 x 32 positions, and at least one",
    )
    energy_floor: float = Field(
        default=0.01, ge=1e-37, description="energy below which scales are no longer told apart"
    )
    enlarging: Enlarging = Field(
        default="spline",
        description="how energies become the map's pixels: spline, a B-spline, which smooths; or linear",
    )
    sharpness: float = Field(
        default=3.0, ge=0.1, le=100, description="inverse temperature of the map's soft minimum over scales"
    )
    picture: float = Field(
        default=0.1, ge=0, le=10, description="weight of the whole picture's Gaussian in the image score"
    )


class ScoreRule(Scoring):
    """The whole of it; recorded in the bundle."""

    gaussian: float = Field(
        default=0.25,
        ge=0,
        le=1,
        description="share of the position's Gaussian in the map, the flow has the rest",
    )


def flow_energies(latents: Sequence[Tensor]) -> list[Tensor]:
    """Energy of every position by the flow, q = 1/2 mean_C z^2 (arXiv 2111.07677).

    Args:
        latents: per scale (N, C_i, H_i, W_i).

    Returns:
        Per scale (N, H_i, W_i); near 1/2 where the part looks like the training set.
    """
    return [0.5 * z.square().mean(1) for z in latents]


def pixel_energies(
    flow: Sequence[Tensor], gaussian: Sequence[Tensor], rule: ScoreRule, size: tuple[int, int]
) -> Tensor:
    """Energies of every pixel, which the map is made of.

    The flow's energy q and the Gaussian's e of a position become q^(1 - w) e^w, w the rule's share: an affine
    coupling may shrink what it has never seen, the Gaussian knows no context, and a product forgets neither.

    Args:
        flow: per scale (N, H_i, W_i), finest first.
        gaussian: likewise, from `PositionGaussian`.
        rule: the share, and how products are enlarged.
        size: (height, width) of the result.

    Returns:
        (N, S, height, width).
    """
    w = rule.gaussian
    both = [q if w == 0 else q.pow(1 - w) * e.pow(w) for q, e in zip(flow, gaussian, strict=True)]
    return torch.stack([_enlarged(x, size, rule.enlarging) for x in both], 1)


def _enlarged(x: Tensor, size: tuple[int, int], how: Enlarging) -> Tensor:
    if how == "linear":
        return F.interpolate(x[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    # Copied, for torch takes no array that is not to be written to.
    rows, columns = (torch.tensor(spline_weights(n, m)).to(x) for n, m in zip(x.shape[1:], size, strict=True))
    return rows @ x.clamp_max(LARGEST) @ columns.T


def anomaly_map(q: Tensor, rule: ScoreRule) -> Tensor:
    """The map that people look at: a soft minimum over the scales, -log(mean_S exp(-s q)) / s.

    It ranks pixels much as the published mean of -exp(-q) does (arXiv 2111.07677 and its implementations),
    but does not round to a constant where every scale is far from normal. A pixel counts as far as its most
    ordinary scale allows, which keeps the coarse scales' wide halos out of the map. Where the coarsest scale
    is blind to a defect, the finer ones must not wait for it: the result is the mean of the soft minimum over
    all scales and of that over all but the coarsest.

    Args:
        q: (N, S, H, W), finest scale first.
        rule: the sharpness s.

    Returns:
        (N, H, W), 0 or more.
    """
    scores = _soft_minimum(q, rule.sharpness)
    if q.shape[1] > 1:
        scores = (scores + _soft_minimum(q[:, :-1], rule.sharpness)) / 2
    return scores


def _soft_minimum(q: Tensor, sharpness: float) -> Tensor:
    # The largest term is 1: no sum of exponentials that all round to 0, and never below 0 but by rounding.
    least = q.amin(1, keepdim=True)
    rest = torch.exp(-sharpness * (q - least)).mean(1).log()
    return (least[:, 0] - rest / sharpness).clamp_min(0)


def picture_part(picture: Tensor, rule: ScoreRule) -> Tensor:
    """What whole pictures add to their scores: weight times the sum of log(1 + e / floor).

    Args:
        picture: (N, S'), energies from `PictureGaussian`.
        rule: the weight and the floor.

    Returns:
        (N,).
    """
    return rule.picture * (picture / rule.energy_floor).log1p().sum(1)


def averaged(rule: ScoreRule, side: tuple[int, int]) -> int:
    """How many positions of a scale's map, (H_i, W_i), an image score averages: by its side, at least one.

    A defect that is long and thin covers as many positions as a map is wide, not as it has.
    """
    positions = math.prod(side)
    return min(positions, max(1, math.floor(rule.top * math.sqrt(positions) + 0.5)))


def positions_part(
    flow: Sequence[Tensor], rule: ScoreRule, counted: Sequence[Tensor] | None = None
) -> Tensor:
    """What single positions make of an image's score: log(1 + q / floor) of each scale's most anomalous ones.

    Unlike the map, a rise in any one scale raises it, however strong the defect is already: the score keeps
    ranking where colours have long saturated. Each scale has its own positions: what is large shows in the
    coarse ones, what is small in the finest, and seldom in the same place. The logarithm keeps the coarsest
    scale, whose energies vary most, from drowning the others. Finite up to q = 1e36, and 0 only where no
    scale has an averaged position above 0.

    Positions that do not count are as good as 0, and as many are averaged as without them, so that a region
    of interest can only lower the score.

    Args:
        flow: per scale (N, T, H_i, W_i), energies by the flow in the T tiles of N pictures.
        rule: how many positions, and the floor.
        counted: per scale, likewise, bool; by default all positions count.

    Returns:
        (N,), float64.
    """
    means = []
    for i, q in enumerate(flow):
        k = averaged(rule, (q.shape[2], q.shape[3]))
        inside = q if counted is None else q.masked_fill(~counted[i], 0)
        # Sorted: a sum rounds according to its order, so that a region could raise a score by a last bit.
        top = inside.flatten(1).topk(k, 1, sorted=True).values
        means.append((top / rule.energy_floor).log1p().double().mean(1))
    # Of single precision, like what it is the mean of: with fewer digits, fewer differences between batches
    # show.
    return torch.stack(means).mean(0).float().double()


def image_score(flow: Sequence[Tensor], rule: ScoreRule, picture: Tensor) -> Tensor:
    """One score per image: what its positions and what the whole of it make, see `positions_part`.

    A region of interest leaves the whole picture's part out. What that means is for a calibration to say, see
    `Calibrator.score`.

    Args:
        flow: per scale (N, T, H_i, W_i), energies by the flow in the T tiles of N pictures.
        rule: how the score is taken.
        picture: (N, S'), from `PictureGaussian`.

    Returns:
        (N,), float64.
    """
    # In double precision: beside the whole picture's part a small rise would round to nothing.
    return positions_part(flow, rule) + picture_part(picture, rule).double()
