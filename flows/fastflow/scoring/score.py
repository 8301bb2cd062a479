"""From energies to an anomaly map, and from there to one score per image."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from flows.fastflow.config import ScoreRule, Upsampling
from flows.fastflow.scoring.upsampling import MAX_ENERGY, spline_weights


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
    """Energies of every pixel: those that the image score is made of, and those that the map is made of.

    For the map, the flow's energy q and the Gaussian's e of a position become q^(1 - w) e^w, w the rule's
    share: an affine coupling may shrink what it has never seen, the Gaussian knows no context, and a product
    forgets neither. The flow's energies are brought to the size bilinearly, products as the rule says.

    Args:
        flow: per scale (N, H_i, W_i), finest first.
        gaussian: likewise, from `PositionGaussian`.
        rule: the share, and how products are enlarged.
        size: (height, width) of the result.

    Returns:
        (N, 2 S, height, width): S scales of the flow, then S scales of the product.
    """
    w = rule.gaussian
    both = [q if w == 0 else q.pow(1 - w) * e.pow(w) for q, e in zip(flow, gaussian, strict=True)]
    up = [_upsample(q, size, "linear") for q in flow] + [_upsample(x, size, rule.enlarging) for x in both]
    return torch.stack(up, 1)


def _upsample(x: Tensor, size: tuple[int, int], how: Upsampling) -> Tensor:
    if how == "linear":
        return F.interpolate(x[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    # Copied, for torch takes no array that is not to be written to.
    rows, columns = (torch.tensor(spline_weights(n, m)).to(x) for n, m in zip(x.shape[1:], size, strict=True))
    return rows @ x.clamp_max(MAX_ENERGY) @ columns.T


def anomaly_map(q: Tensor, rule: ScoreRule, region: Tensor | None = None) -> Tensor:
    """The map that people look at: a soft minimum over the scales, -log(mean_S exp(-s q)) / s.

    It ranks pixels much as the published mean of -exp(-q) does (arXiv 2111.07677 and its implementations),
    but does not round to a constant where every scale is far from normal. A pixel counts as far as its most
    ordinary scale allows, which keeps the coarse scales' wide halos out of the map. Where the coarsest scale
    is blind to a defect, the finer ones must not wait for it: the result is the mean of the soft minimum over
    all scales and of that over all but the coarsest.

    Args:
        q: (N, S, H, W), finest scale first.
        rule: the sharpness s.
        region: (N, H, W) bool, the region of interest, outside which the map is 0; by default everything.

    Returns:
        (N, H, W), 0 or more.
    """
    scores = _soft_minimum(q, rule.sharpness)
    if q.shape[1] > 1:
        scores = (scores + _soft_minimum(q[:, :-1], rule.sharpness)) / 2
    return scores if region is None else scores.masked_fill(~region, 0)


def _soft_minimum(q: Tensor, sharpness: float) -> Tensor:
    # The largest term is 1: no sum of exponentials that all round to 0, and never below 0 but by rounding.
    least = q.amin(1, keepdim=True)
    rest = torch.exp(-sharpness * (q - least)).mean(1).log()
    return (least[:, 0] - rest / sharpness).clamp_min(0)


def image_parts(picture: Tensor, rule: ScoreRule) -> Tensor:
    """What whole pictures add to their scores: weight times the sum of log(1 + e / floor).

    Args:
        image: (N, S'), energies from `ImageGaussian`.
        rule: the weight and the floor.

    Returns:
        (N,).
    """
    return rule.picture * (picture / rule.energy_floor).log1p().sum(1)


def image_score(q: Tensor, rule: ScoreRule, picture: Tensor, region: Tensor | None = None) -> Tensor:
    """One score per image: log(1 + q / floor), averaged over scales and the most anomalous pixels.

    Unlike the map, a rise in any one scale raises it, however strong the defect is already: the score keeps
    ranking where colours have long saturated. The logarithm keeps the coarsest scale, whose energies vary
    most, from drowning the others. Finite up to q = 1e36, and 0 only where every q is 0.

    What the whole picture looks like adds its part, see `image_parts`.

    A region of interest sets the pixels outside it to 0 and still averages as many as without it, and leaves
    the whole picture's part out, so that it can only lower the score. What that means is for a calibration to
    say, see `Calibrator.score`.

    Args:
        q: (N, S, H, W), of the flow.
        rule: the share of pixels, the floor, and the weight of the whole picture.
        image: (N, S'), from `ImageGaussian`.
        region: (N, H, W) bool, the region of interest; by default everything.

    Returns:
        (N,), float64.
    """
    pixels = (q / rule.energy_floor).log1p().mean(1)
    whole = image_parts(picture, rule)
    if region is not None:
        pixels = pixels.masked_fill(~region, 0)
        whole = whole.masked_fill(~region.flatten(1).all(1), 0)
    pixels = pixels.flatten(1)
    k = max(1, round(rule.top_fraction * pixels.shape[1]))
    # Sorted, because a sum rounds according to its order: a region could then raise a score by a last bit.
    top = pixels.topk(k, 1, sorted=True).values.mean(1)
    # In double precision: beside the whole picture's part a small rise would round to nothing.
    return top.double() + whole.double()
