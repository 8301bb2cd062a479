"""Anomaly map and image score from energies."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from flows.fastflow.config import ScoreRule, Upsampling
from flows.fastflow.scoring.upsampling import MAX_ENERGY, spline_weights


def flow_energies(latents: Sequence[Tensor]) -> list[Tensor]:
    """Compute the flow's energy of every position, q = 1/2 mean_C z^2 (arXiv 2111.07677).

    Args:
        latents: per scale (N, C_i, H_i, W_i).

    Returns:
        Per scale (N, H_i, W_i); near 1/2 where the part looks like the training set.
    """
    return [0.5 * z.square().mean(1) for z in latents]


def pixel_energies(
    flow: Sequence[Tensor], gaussian: Sequence[Tensor], rule: ScoreRule, size: tuple[int, int]
) -> Tensor:
    """Compute the energies of every pixel: those for the image score, and those for the map.

    For the map, the flow's energy q and the Gaussian's energy e of a position become q^(1 - w) e^w, where w
    is the rule's share. An affine coupling may shrink what it has never seen, and the Gaussian knows no
    context; the product uses both. The flow's energies are interpolated bilinearly, products by the rule.

    Args:
        flow: per scale (N, H_i, W_i), finest first.
        gaussian: energies from `PositionGaussian`, of the same shapes.
        rule: the share, and the interpolation of products.
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
    # Copied, because torch does not accept read-only arrays.
    rows, columns = (torch.tensor(spline_weights(n, m)).to(x) for n, m in zip(x.shape[1:], size, strict=True))
    return rows @ x.clamp_max(MAX_ENERGY) @ columns.T


def anomaly_map(q: Tensor, rule: ScoreRule, region: Tensor | None = None) -> Tensor:
    """Compute the anomaly map: a soft minimum over the scales, -log(mean_S exp(-s q)) / s.

    It ranks pixels much like the published mean of -exp(-q) (arXiv 2111.07677 and its implementations), but
    does not round to a constant if every scale is far from normal. The most ordinary scale limits a pixel,
    which keeps the wide halos of coarse scales out of the map. The coarsest scale may miss a defect, so the
    result is the mean of two soft minima: over all scales, and over all but the coarsest.

    Args:
        q: (N, S, H, W), finest scale first.
        rule: the sharpness s.
        region: (N, H, W) bool, the region of interest, by default everything; the map is 0 outside.

    Returns:
        (N, H, W), 0 or more.
    """
    scores = _soft_minimum(q, rule.sharpness)
    if q.shape[1] > 1:
        scores = (scores + _soft_minimum(q[:, :-1], rule.sharpness)) / 2
    return scores if region is None else scores.masked_fill(~region, 0)


def _soft_minimum(q: Tensor, sharpness: float) -> Tensor:
    # The largest term is 1, so the sum of exponentials cannot round to 0.
    minimum = q.amin(1, keepdim=True)
    rest = torch.exp(-sharpness * (q - minimum)).mean(1).log()
    return (minimum[:, 0] - rest / sharpness).clamp_min(0)


def image_parts(image: Tensor, rule: ScoreRule, learned: Tensor | None = None) -> Tensor:
    """Compute the parts of whole images in their scores: weight times the sum of log(1 + e / floor).

    Args:
        image: (N, S'), see `fused.Energies`.
        rule: the weight and the floor.
        learned: (N,), added; from `LearnedPart`.

    Returns:
        (N,), float64.
    """
    parts = (rule.picture * (image / rule.energy_floor).log1p().sum(1)).double()
    return parts if learned is None else parts + learned.double()


def image_score(
    q: Tensor,
    rule: ScoreRule,
    image: Tensor,
    region: Tensor | None = None,
    *,
    learned: Tensor | None = None,
) -> Tensor:
    """Compute one score per image: log(1 + q / floor), averaged over scales and the top pixels.

    Unlike the map, the score rises with every scale, however strong the defect, so it still ranks images
    whose colours are saturated. The logarithm prevents the coarsest scale, whose energies vary most, from
    dominating the others. The score is finite up to q = 1e36, and 0 only if every q is 0.

    The whole image adds its part, see `image_parts`, and the part learned from reviewed defects.

    A region of interest sets the pixels outside it to 0, averages as many pixels as without it, and excludes
    the whole image's parts. So it can only lower the score; `Calibrator.score` maps it to full scores.

    Args:
        q: (N, S, H, W), energies of the flow.
        rule: the share of pixels, the floor, and the weight of the whole image.
        image: (N, S'), see `fused.Energies`.
        region: (N, H, W) bool, the region of interest; by default everything.
        learned: (N,), from `LearnedPart`.

    Returns:
        (N,), float64.
    """
    pixels = (q / rule.energy_floor).log1p().mean(1)
    whole = image_parts(image, rule, learned)
    if region is not None:
        pixels = pixels.masked_fill(~region, 0)
        whole = whole.masked_fill(~region.flatten(1).all(1), 0)
    pixels = pixels.flatten(1)
    k = max(1, round(rule.top_fraction * pixels.shape[1]))
    # Sorted, because rounding depends on the order of a sum: a region could raise a score by a last bit.
    top = pixels.topk(k, 1, sorted=True).values.mean(1)
    # Double precision: added to the whole image's part, a small rise would round to nothing.
    return top.double() + whole
