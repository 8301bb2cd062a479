"""How strange a picture is to a flow: its likelihood, and what to use where that misleads.

The likelihood alone calls some strange pictures ordinary: smooth or blank ones may be *likelier* than
anything the flow was trained on (Nalisnick et al. 2019, "Do Deep Generative Models Know What They Don't
Know?", arXiv 1810.09136). Every score here is high where a picture is strange:

    negative_log_likelihood    -log p(x), the plain one
    typicality                 |-log p(x) - its mean over training data|
    latent_surprise            -log p_Z(z) without the volume term; and its typicality
    likelihood_ratio           -log p(x) + log p_background(x)
    complexity_ratio           -log2 p(x) - bits of the picture as a PNG

All take integers 0 ... levels - 1 and flows over these, and average over draws of the dequantisation. Its
noise is drawn by the seed and the picture, so that a score depends on no other picture beside it.
"""

import hashlib
import math
from collections.abc import Callable
from typing import cast

import cv2
import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from flows import Compose, Flow, Transform, UniformDequantization
from training.density.fit import batch_rows, expect_levels


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
    return -_mean_over_draws(flow, lambda rest, y, log_det: rest.log_prob(y) + log_det, x, draws, seed)


def latent_surprise(flow: Flow, x: Tensor, *, draws: int = 4, seed: int = 0) -> Tensor:
    """-log p_Z(f(x)) in nats, (N,): how far from the centre the latents are.

    For a standard normal base it is |z|^2 / 2 and a constant: by the latents' norm. What it leaves out, the
    log-determinant, is what rewards smooth pictures. Normal latents lie near |z| = sqrt(D) and not at the
    centre, so this too is to be asked for its deviation from the training data's (`typicality`).
    """

    def log_base(rest: Flow, y: Tensor, _: Tensor) -> Tensor:
        return rest.base.log_prob(rest.transform.forward(y)[0])

    return -_mean_over_draws(flow, log_base, x, draws, seed)


def typicality(scores: Tensor, train_scores: Tensor) -> Tensor:
    """|score - mean score of the training data|, (N,).

    With the negative log-likelihood as score: the test of typicality of Nalisnick et al. 2019, "Detecting
    Out-of-Distribution Inputs to Deep Generative Models Using Typicality", arXiv 1906.02994, eq. 4, for
    single pictures; the mean estimates the entropy. What is too likely is as strange as what is too unlikely.

    Args:
        scores: (N,).
        train_scores: (M,), of pictures that the flow's density is meant for; of held-out ones where the flow
            may have learned its training pictures by heart.

    Raises:
        ValueError: there are none of those.
    """
    if not len(train_scores):
        raise ValueError("typicality expected scores of training data; got none")
    return (scores - train_scores.mean()).abs()


def likelihood_ratio(foreground: Tensor, background: Tensor) -> Tensor:
    """-log p(x) + log p_background(x), (N,): what the background explains is taken off.

    Ren et al. 2019, "Likelihood Ratios for Out-of-Distribution Detection", arXiv 1906.02845, eq. 5-6. The
    background model is a flow of the same kind trained on `perturbed` pictures.

    Args:
        foreground: negative log-likelihoods by the flow, (N,).
        background: by the background model.
    """
    return foreground - background


def perturbed(x: Tensor, levels: int, rate: float, *, generator: torch.Generator | None = None) -> Tensor:
    """Pictures in which each value is, with probability `rate`, replaced by a uniform one of the levels.

    What a background model is trained on (Ren et al. 2019, arXiv 1906.02845, section 3.2; rates of 0.1 to 0.3
    there): the shapes are lost, what is common to all pictures stays.

    Raises:
        ValueError: the rate is no probability.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"a rate of perturbation is in [0, 1]; got {rate}")
    replace = torch.rand(x.shape, generator=generator, device=x.device) < rate
    values = torch.randint(levels, x.shape, generator=generator, device=x.device).to(x.dtype)
    return torch.where(replace, values, x)


def complexity_ratio(negative_log_likelihoods: Tensor, x: Tensor, levels: int) -> Tensor:
    """-log2 p(x) - L(x) in bits, (N,), with L(x) the size of the picture as a PNG.

    Serrà et al. 2020, "Input Complexity and Out-of-distribution Detection with Likelihood-based Generative
    Models", arXiv 1909.11480, eq. 1: a general compressor stands for a background model. The PNG's fixed
    parts add the same to all pictures.

    Args:
        negative_log_likelihoods: (N,), in nats.
        x: (N, 1 or 3, H, W), integers 0 ... levels - 1.
        levels: at most 256.
    """
    bits = torch.tensor([_png_bits(picture, levels) for picture in x], dtype=torch.float64)
    return negative_log_likelihoods.double() / math.log(2) - bits.to(negative_log_likelihoods.device)


def auroc(ordinary: Tensor, strange: Tensor) -> float:
    """Probability that a strange picture's score is above an ordinary one's; ties count half.

    Args:
        ordinary: scores, (N,).
        strange: scores, (M,).

    Raises:
        ValueError: one of them is empty or has a score that is not a number.
    """
    if not len(ordinary) or not len(strange):
        raise ValueError(f"AUROC expected scores of both kinds; got {len(ordinary)} and {len(strange)}")
    scores = torch.cat([ordinary, strange]).double().cpu()
    if scores.isnan().any():
        raise ValueError(f"{int(scores.isnan().sum())} of {len(scores)} scores are not a number")
    labels = [0] * len(ordinary) + [1] * len(strange)
    return float(roc_auc_score(labels, scores.clamp(-1e300, 1e300).numpy()))


@torch.no_grad()
def _mean_over_draws(
    flow: Flow, log_prob: Callable[[Flow, Tensor, Tensor], Tensor], x: Tensor, draws: int, seed: int
) -> Tensor:
    """Mean of what `log_prob` makes of the flow behind the dequantisation, what comes out of that, (N, ...),
    and its log-determinant, (N,).
    """
    if draws < 1:
        raise ValueError(f"expected at least 1 draw of the noise; got {draws}")
    steps = cast(list[Transform], [*flow.transform.transforms] if isinstance(flow.transform, Compose) else [])
    if len(steps) < 2 or not isinstance(steps[0], UniformDequantization):
        raise ValueError("expected a flow over integers, which begins with UniformDequantization")
    expect_levels(x, steps[0].levels, "pictures")
    rest = Flow(Compose(steps[1:]), flow.base)
    found = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    rows = batch_rows(math.prod(x.shape[1:]))
    for batch, total in zip(torch.split(x, rows), torch.split(found, rows), strict=True):
        generators = [_generator(picture, seed) for picture in batch]
        for _ in range(draws):
            noise = torch.stack([torch.rand(batch.shape[1:], generator=own) for own in generators])
            total += log_prob(rest, *steps[0].with_noise(batch, noise.to(x.device))).double()
    return found / draws


def _generator(picture: Tensor, seed: int) -> torch.Generator:
    """Of a picture's own noise: shared noise would make a mean over pictures several times as uncertain."""
    sha256 = hashlib.sha256(f"{seed} ".encode() + picture.double().cpu().numpy().tobytes())
    return torch.Generator().manual_seed(int.from_bytes(sha256.digest()[:8]))


def _png_bits(picture: Tensor, levels: int) -> int:
    """Bits of one picture, (C, H, W), as a PNG."""
    channels = len(picture)
    if channels not in (1, 3) or not 2 <= levels <= 256:
        raise ValueError(f"a PNG has 1 or 3 channels of up to 256 levels; got {channels} of {levels}")
    pixels = picture.permute(1, 2, 0).cpu().numpy().astype(np.uint8)
    done, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not done:
        raise ValueError("OpenCV could not write a PNG")
    return 8 * len(data)
