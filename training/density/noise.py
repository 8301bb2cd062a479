"""The noise of a camera, learned from repeated shots: p(noisy - clean | clean) as a conditional flow.

A camera's noise grows with the light that falls on a pixel: photons are counted, so their number has a
Poisson distribution, and the read-out adds a normal one (Foi et al. 2008, "Practical Poissonian-Gaussian
noise modeling and fitting for single-image raw-data", IEEE TIP 17(10), eq. 1-3). A flow that is given the
clean picture learns that law, and more than it (Noise Flow, Abdelhamed et al. 2019, arXiv 1908.08453).
Samples of it are noise to augment training pictures with; its density tells a noisy pixel from a defective
one.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_sample_image
from torch import Tensor

from flows import (
    ActNorm,
    Affine,
    Checkerboard,
    Compose,
    Coupling,
    Flow,
    GlowNet,
    RationalQuadraticSpline,
    SoftClamp,
    StandardNormal,
    Transform,
)
from flows.laws import Law
from training.density.fit import FitPoint, FitSettings, expect_finite, fit

_HIDDEN = 16  # channels of the conditioners
_HELD_OUT = 0.1  # of the pairs, to find the best weights by


@dataclass(frozen=True)
class Camera:
    """A Poisson-Gaussian camera: y = gain k + e, k ~ Poisson(x / gain), e ~ N(0, read_variance).

    Brightness x is in [0, 1]; the mean of y is x and its variance gain x + read_variance.

    Attributes:
        gain: brightness per photon, above 0; 1 / gain photons make white.
        read_variance: of the read-out, in squares of brightness, above 0.

    Raises:
        ValueError: one of them is not above 0.
    """

    gain: float = 0.01
    read_variance: float = 4e-4

    def __post_init__(self) -> None:
        if not (self.gain > 0 and self.read_variance > 0):
            raise ValueError(
                f"a camera has a gain and a read variance above 0; got {self.gain} and {self.read_variance}"
            )

    def shoot(self, clean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One noisy shot of clean pictures; any shape, float."""
        photons = torch.poisson((clean / self.gain).clamp_min(0), generator)
        read = torch.randn(clean.shape, generator=generator, dtype=clean.dtype, device=clean.device)
        noisy: Tensor = self.gain * photons + math.sqrt(self.read_variance) * read
        return noisy

    def variance(self, clean: Tensor) -> Tensor:
        """Variance of the noise at each brightness; any shape."""
        return self.gain * clean + self.read_variance

    def log_prob(self, noise: Tensor, clean: Tensor) -> Tensor:
        """Exact log-density of the noise y - x, in nats, (N,), in float64; both (N, ...).

        A sum over the numbers of photons. Those far beyond both the expected one and the observed one, over
        all rows, are left out: less than 1e-12 of the density, so of the log-density. It takes memory for as
        many numbers per pixel as photons make the brightest of all.
        """
        expected = (clean.double() / self.gain).clamp_min(0)[..., None]
        observed = (clean.double() + noise.double()) / self.gain
        highest = max(expected.max().item(), observed.max().item())
        photons = torch.arange(
            int(highest + 10 * highest**0.5 + 30), dtype=torch.float64, device=clean.device
        )
        count = torch.special.xlogy(photons, expected) - expected - torch.lgamma(photons + 1)
        rest = (clean.double() + noise.double())[..., None] - self.gain * photons
        read = -0.5 * (rest.square() / self.read_variance + math.log(2 * math.pi * self.read_variance))
        return torch.logsumexp(count + read, -1).flatten(1).sum(1)


def photograph_patches(name: str, size: int = 8) -> Tensor:
    """A photograph that scikit-learn carries, grey, cut into patches: (N, 1, size, size), 0 to 1.

    Args:
        name: "china.jpg" or "flower.jpg" (`sklearn.datasets.load_sample_image`; CC BY 2.0).
        size: pixels along a side of a patch; they do not overlap, in order of rows.
    """
    pixels = torch.from_numpy(np.array(load_sample_image(name))).float() / 255  # (H, W, 3)
    grey = pixels @ pixels.new_tensor([0.299, 0.587, 0.114])
    patches = grey.unfold(0, size, size).unfold(1, size, size)  # (rows, columns, size, size)
    return patches.reshape(-1, 1, size, size).contiguous()


def noise_of_repeats(shots: Tensor) -> tuple[Tensor, Tensor]:
    """What repeated shots of still scenes tell: an estimate of the clean pictures, and the noise of one shot.

    The estimate is the mean over the shots. What is left of a shot varies less than the noise itself, by
    1 - 1/R, and is scaled up by that.

    Args:
        shots: (R, N, C, H, W), R >= 2 shots of each of N scenes.

    Returns:
        clean, (R N, C, H, W), and noise, of the same shape: a row for each shot of each scene.

    Raises:
        ValueError: there are fewer than two shots, or (R, N) alone.
    """
    repeats = len(shots)
    if shots.ndim < 3 or repeats < 2:
        raise ValueError(f"expected at least 2 shots of each scene, (R, N, ...); got {tuple(shots.shape)}")
    clean = shots.mean(0, keepdim=True)
    noise = (shots - clean) * (repeats / (repeats - 1)) ** 0.5
    return clean.expand_as(shots).flatten(0, 1), noise.flatten(0, 1)


def noise_flow(channels: int, size: int) -> Flow:
    """An untrained p(noise | clean) for patches.

    As in Noise Flow, the level that depends on the signal comes first and the shape after: affine couplings
    over both colours of a checkerboard, then spline couplings. Every conditioner sees the clean patch and the
    noise of the pixel's neighbours, so that noise may also be correlated.

    Args:
        channels: C of the patches.
        size: their height and width.
    """

    def coupling(law: Law, *, swapped: bool) -> Transform:
        sizes = (channels, _HIDDEN, law.per_element * channels)
        return Coupling(Checkerboard(channels, swapped=swapped), GlowNet(sizes, context=channels), law)

    steps: list[Transform] = [ActNorm(channels)]
    steps += [coupling(Affine(SoftClamp(4.0)), swapped=swapped) for swapped in (False, True)]
    steps.append(ActNorm(channels))
    steps += [coupling(RationalQuadraticSpline(8, 5.0), swapped=swapped) for swapped in (False, True)]
    return Flow(Compose(steps), StandardNormal((channels, size, size)))


def fit_noise(
    clean: Tensor,
    noise: Tensor,
    settings: FitSettings,
) -> tuple[Flow, list[FitPoint]]:
    """Fit p(noise | clean) to pairs, by repeated shots (`noise_of_repeats`) or by a known clean picture.

    >>> clean = photograph_patches("china.jpg")[:64]
    >>> noise = Camera().shoot(clean) - clean
    >>> flow, _ = fit_noise(clean, noise, FitSettings(steps=2, batch_size=16))
    >>> flow.sample(5, context=clean[:5]).shape
    torch.Size([5, 1, 8, 8])

    Args:
        clean: (N, C, S, S), the context.
        noise: (N, C, S, S), noisy - clean, in the same unit.
        settings: of the fit; its seed also draws the pairs held out.

    Returns:
        The flow, in evaluation mode; its context is the clean patch. And the looks of the fit.

    Raises:
        ValueError: the shapes do not match, or are no square patches.
        DensityFitError: a value is not finite, or there are too few pairs; a ValueError too.
    """
    if clean.shape != noise.shape or clean.ndim != 4 or clean.shape[-1] != clean.shape[-2]:
        raise ValueError(
            f"expected clean patches and their noise, both (N, C, S, S); got {tuple(clean.shape)} and "
            f"{tuple(noise.shape)}"
        )
    expect_finite(clean, "clean patches")
    expect_finite(noise, "noise")
    held_out = max(1, round(_HELD_OUT * len(clean)))
    order = torch.randperm(len(clean), generator=torch.Generator().manual_seed(settings.seed))
    order = order.to(clean.device)
    rows, others = order[held_out:], order[:held_out]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        flow = noise_flow(clean.shape[1], clean.shape[-1]).to(clean)
    points = fit(
        flow,
        noise[rows],
        noise[others],
        settings,
        context=clean[rows],
        validation_context=clean[others],
    )
    return flow, points


@dataclass(frozen=True)
class NoiseLevel:
    """Noise of the pixels of one range of brightness.

    Attributes:
        brightness: mean of the clean pixels in it.
        variance: mean square of their noise.
        pixels: how many.
    """

    brightness: float
    variance: float
    pixels: int


def noise_levels(noise: Tensor, clean: Tensor, *, bins: int = 10, least: int = 100) -> list[NoiseLevel]:
    """The noise's variance by brightness, in equal ranges from 0 to 1.

    Args:
        noise: any shape.
        clean: the same shape; brightness.
        bins: ranges.
        least: pixels that a range must have to be given.
    """
    index = (clean * bins).long().clamp(0, bins - 1)
    levels = []
    for i in range(bins):
        inside = index == i
        count = int(inside.sum())
        if count >= max(least, 1):
            variance = noise[inside].double().square().mean().item()
            levels.append(NoiseLevel(clean[inside].double().mean().item(), variance, count))
    return levels
