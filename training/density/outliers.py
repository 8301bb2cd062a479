"""How strange an image is to a flow: its likelihood, and what to use where that misleads.

The likelihood alone calls some strange images ordinary: smooth or blank ones may be *likelier* than
anything the flow was trained on (Nalisnick et al. 2019, "Do Deep Generative Models Know What They Don't
Know?", arXiv 1810.09136). Their `typicality` tells them apart.

Both take integers 0 ... levels - 1 and flows over these, and average over draws of the dequantisation. Its
noise is drawn by the seed and the image, so that a score depends on no other image beside it.
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
    """-log p(x) in nats, (N,), in float64: a mean over draws of the dequantisation's noise.

    Args:
        flow: over integers, made with `levels`; in evaluation mode.
        x: (N, C, H, W), integers.
        draws: how many.
        seed: of the draws.

    Raises:
        ValueError: there is no draw, the flow does not begin with `UniformDequantization`, or a value is none
            of its integers.
    """
    if draws < 1:
        raise ValueError(f"expected at least 1 draw of the noise; got {draws}")
    steps = cast(list[Transform], [*flow.transform.transforms] if isinstance(flow.transform, Compose) else [])
    if len(steps) < 2 or not isinstance(steps[0], UniformDequantization):
        raise ValueError("expected a flow over integers, which begins with UniformDequantization")
    require_levels(x, steps[0].levels, "images")
    rest = Flow(Compose(steps[1:]), flow.base)
    found = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    rows = batch_rows(math.prod(x.shape[1:]))
    for batch, total in zip(torch.split(x, rows), torch.split(found, rows), strict=True):
        generators = [_generator(image, seed) for image in batch]
        for _ in range(draws):
            noise = torch.stack([torch.rand(batch.shape[1:], generator=own) for own in generators])
            y, log_det = steps[0].with_noise(batch, noise.to(x.device))
            total += (rest.log_prob(y) + log_det).double()
    return -found / draws


def typicality(scores: Tensor, train_scores: Tensor) -> Tensor:
    """|score - mean score of the training data|, (N,).

    With the negative log-likelihood as score: the test of typicality of Nalisnick et al. 2019, "Detecting
    Out-of-Distribution Inputs to Deep Generative Models Using Typicality", arXiv 1906.02994, eq. 4, for
    single images; the mean estimates the entropy. What is too likely is as strange as what is too unlikely.

    Args:
        scores: (N,).
        train_scores: (M,), of images that the flow's density is meant for; of held-out ones where the flow
            may have learned its training images by heart.

    Raises:
        ValueError: there are none of those.
    """
    if not len(train_scores):
        raise ValueError("typicality expected scores of training data; got none")
    return (scores - train_scores.mean()).abs()


def _generator(image: Tensor, seed: int) -> torch.Generator:
    """Of an image's own noise: shared noise would make a mean over images several times as uncertain."""
    sha256 = hashlib.sha256(f"{seed} ".encode() + image.double().cpu().numpy().tobytes())
    return torch.Generator().manual_seed(int.from_bytes(sha256.digest()[:8]))
