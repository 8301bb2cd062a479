"""Outlier scores of images under a flow: negative log-likelihood and typicality.

The likelihood alone misses some outliers: smooth or blank images may be *likelier* than the training images
(Nalisnick et al. 2019, "Do Deep Generative Models Know What They Don't Know?", arXiv 1810.09136). Typicality
detects them.

Both take integers 0 ... levels - 1 and flows over these, and average over draws of the dequantisation noise.
Seed and image determine the noise, so a score does not depend on other images.
"""

import hashlib
import math
from typing import cast

import torch
from torch import Tensor

from flows import Compose, Flow, Transform, UniformDequantization
from training.density.fit import batch_rows, require_levels


@torch.no_grad()
def negative_log_likelihood(flow: Flow, x: Tensor, *, draws: int = 4, seed: int = 0) -> Tensor:
    """Compute -log p(x) in nats, (N,), float64: a mean over draws of the dequantisation noise.

    Args:
        flow: a flow over integers (built with `levels`), in evaluation mode.
        x: (N, C, H, W), integers.

    Raises:
        ValueError: `draws` is below 1, the flow does not begin with `UniformDequantization`, or a value is
            outside its integers.
    """
    if draws < 1:
        raise ValueError(f"expected at least 1 draw of the noise; got {draws}")
    steps = cast(list[Transform], [*flow.transform.transforms] if isinstance(flow.transform, Compose) else [])
    if len(steps) < 2 or not isinstance(steps[0], UniformDequantization):
        raise ValueError("expected a flow over integers, which begins with UniformDequantization")
    require_levels(x, steps[0].levels, "images")
    rest = Flow(Compose(steps[1:]), flow.base)
    sums = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    rows = batch_rows(math.prod(x.shape[1:]))
    for batch, total in zip(torch.split(x, rows), torch.split(sums, rows), strict=True):
        generators = [_generator(image, seed) for image in batch]
        for _ in range(draws):
            noise = torch.stack([torch.rand(batch.shape[1:], generator=own) for own in generators])
            y, log_det = steps[0].with_noise(batch, noise.to(x.device))
            total += (rest.log_prob(y) + log_det).double()
    return -sums / draws


def typicality(scores: Tensor, train_scores: Tensor) -> Tensor:
    """Compute |score - mean score of the training data|, (N,).

    With negative log-likelihoods this is the typicality test for single images of Nalisnick et al. 2019,
    "Detecting Out-of-Distribution Inputs to Deep Generative Models Using Typicality", arXiv 1906.02994,
    eq. 4. The mean estimates the entropy; too likely counts like too unlikely.

    Args:
        scores: (N,).
        train_scores: (M,), scores of training images, or of held-out ones if the flow may have memorised its
            training images.

    Raises:
        ValueError: `train_scores` is empty.
    """
    if not len(train_scores):
        raise ValueError("typicality expected scores of training data; got none")
    return (scores - train_scores.mean()).abs()


def _generator(image: Tensor, seed: int) -> torch.Generator:
    """Make the generator of an image's own noise; shared noise would correlate the scores."""
    sha256 = hashlib.sha256(f"{seed} ".encode() + image.double().cpu().numpy().tobytes())
    return torch.Generator().manual_seed(int.from_bytes(sha256.digest()[:8]))
