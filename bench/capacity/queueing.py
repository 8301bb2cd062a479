"""Queues of batches and caches of models: how long images wait, and how often a model must be loaded.

A server starts a batch as soon as it is free, with all waiting images up to a limit. Inoue, "Queueing
analysis of GPU-based inference servers with dynamic batching: A closed-form characterization", Performance
Evaluation 147 (2021), shows that a batch time linear in the number of images describes such servers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BatchServer:
    """A server whose batches of n images take `fixed + n * per_image` seconds, with n up to `max_batch`."""

    fixed: float
    per_image: float
    max_batch: int

    @property
    def capacity(self) -> float:
        """Images a second with full batches only."""
        return self.max_batch / self.seconds(self.max_batch)

    def seconds(self, images: int) -> float:
        return self.fixed + self.per_image * images

    def simulate(self, rate: float, images: int, seed: int = 0) -> Floats:
        """Simulate images that arrive at random times; return each one's seconds until its batch ends.

        Args:
            rate: images a second, a Poisson process; must be below `capacity` for a steady state.
            images: number of images.
            seed: of the arrivals.
        """
        arrivals = np.random.default_rng(seed).exponential(1 / rate, images).cumsum()
        done = np.empty(images)
        first, now = 0, 0.0
        while first < images:
            begun = max(now, float(arrivals[first]))
            waiting = int(np.searchsorted(arrivals, begun, side="right")) - first
            batch = min(waiting, self.max_batch)
            now = begun + self.seconds(batch)
            done[first : first + batch] = now
            first += batch
        waits: Floats = done - arrivals
        return waits

    def mean_bound(self, rate: float) -> float:
        """Return an upper bound of the mean of `simulate`, without a limit of the batch (Inoue, Theorem 2).

        Raises:
            ValueError: the rate is at or over 1 / per_image.
        """
        load = rate * self.per_image
        if load >= 1:
            raise ValueError(f"{rate} images a second are too many for {self.per_image} s an image")
        fixed, one = self.fixed, self.per_image
        light = (one + fixed) / (2 * (1 - load)) * (1 + 2 * rate * fixed + (1 - rate * fixed) / (1 + load))
        heavy = 1.5 * fixed / (1 - load) + one / 2 * (load + 2) / (1 - load**2)
        return min(light, heavy)


def fit(batches: Sequence[tuple[int, float]], max_batch: int) -> BatchServer:
    """Fit a batch server to measured batches, each its number of images and seconds.

    The median of each size counts, weighted by the number of its batches: single batches of a busy machine
    take many times as long.

    Raises:
        ValueError: all batches have the same size.
    """
    sizes = sorted({size for size, _ in batches})
    if len(sizes) < 2:
        raise ValueError(f"batches of several sizes are needed; all have {sizes} images")
    seconds = [[took for size, took in batches if size == wanted] for wanted in sizes]
    medians = [float(np.median(found)) for found in seconds]
    weights = np.sqrt([len(found) for found in seconds])
    per_image, fixed = np.polyfit(sizes, medians, 1, w=weights)
    return BatchServer(max(float(fixed), 0.0), float(per_image), max_batch)


def zipf(categories: int, exponent: float) -> Floats:
    """Return each category's share of the images, most popular first: 1 / rank ** exponent, normalised."""
    shares = np.arange(1, categories + 1, dtype=np.float64) ** -exponent
    normalised: Floats = shares / shares.sum()
    return normalised


def miss_share(popularity: Floats, places: int) -> float:
    """Return the share of images whose model is not in memory, with the least recently used one dropped.

    The approximation of Che, Tung and Wang, "Hierarchical Web caching systems", IEEE JSAC 20 (2002): a model
    stays for the same time after each use, for which `places` models are in memory on average.

    Args:
        popularity: each category's share of the images; positive.
        places: number of models that fit into memory.
    """
    if places >= len(popularity):
        return 0.0

    def models_too_many(time: float) -> float:
        return float(-np.expm1(-popularity * time).sum()) - places

    end = 1.0
    while models_too_many(end) < 0:
        end *= 2
    time = brentq(models_too_many, 0, end)
    return float((popularity * np.exp(-popularity * time)).sum())
