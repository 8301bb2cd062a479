"""Gaussian models of features: of every position, and of whole images.

A flow may shrink inputs that it has never seen, because an affine coupling may give them a small scale. The
energy of a Gaussian always grows with the square of the distance. The two make different errors, so `score`
uses both.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Smallest variance, as a share of the average: without it, a direction in which good parts never differ would
# turn rounding into an anomaly.
_VARIANCE_FLOOR = 1e-6


class PositionGaussian(nn.Module):
    """Gaussian with full covariance over the channels, shared by all positions.

    Its energy is half the squared Mahalanobis distance per channel, so good parts lie near 1/2 like the
    flow's latents. PaDiM has a mean and a covariance for each position (Defard et al. 2021, arXiv
    2011.08785, section 3). Here each position may have its own mean, which a hundred images estimate well,
    but all share the covariance of the deviations. A covariance per position would need more images than
    there are, and a hundred times the memory. Parts need not lie in the same place: if they move, the means
    of all positions are alike.

    Args:
        channels: channels of each scale.
        sizes: (H_i, W_i) of each scale, for a mean per position; by default all positions share one.
    """

    def __init__(self, channels: Sequence[int], sizes: Sequence[tuple[int, int]] | None = None) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.sizes = None if sizes is None else tuple(sizes)
        for i, c in enumerate(self.channels):
            size = () if self.sizes is None else self.sizes[i]
            self.register_buffer(f"mean_{i}", torch.zeros(c, *size))
            self.register_buffer(f"whitening_{i}", _identity(c))

    def fit(self, batches: Iterable[Sequence[Tensor]]) -> None:
        """Set mean and covariance from batches of normalised feature maps of the training set.

        The correlation is shrunk towards the identity by C / n, where n is the number of positions (without
        those of one image if each position has a mean). This is almost nothing for many positions, and keeps
        the matrix invertible if there are fewer positions than channels.

        Args:
            batches: per batch one (N, C_i, H_i, W_i) per scale; iterated once.

        Raises:
            ValueError: there are no batches, or a feature is not finite.
        """
        means = [self.get_buffer(f"mean_{i}") for i in range(len(self.channels))]
        firsts = [torch.zeros_like(mean, dtype=torch.float64, device="cpu") for mean in means]
        seconds = [torch.zeros(c, c, dtype=torch.float64) for c in self.channels]
        images, positions = 0, [0] * len(self.channels)
        axes = (0, 2, 3) if self.sizes is None else (0,)
        centres: list[Tensor] = []
        for maps in batches:
            # Centres near the mean: products of values far from 0 lose the digits of deviations.
            centres = centres or [x.mean(axes, keepdim=True) for x in maps]
            images += len(maps[0])
            for i, (x, centre) in enumerate(zip(maps, centres, strict=True)):
                offset = x - centre
                rows = offset.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
                positions[i] += len(rows)
                firsts[i] += offset.sum(axes, dtype=torch.float64).cpu()
                # Single precision is exact enough within a batch, and several times faster.
                seconds[i] += (rows.T @ rows).double().cpu()
        for i, (n, first, second) in enumerate(zip(positions, firsts, seconds, strict=True)):
            rows_per_mean = n if self.sizes is None else images
            average = first / rows_per_mean
            spread = average.reshape(len(average), -1)
            # The means of positions take the degrees of freedom of one image.
            freedom = n if self.sizes is None else max(1, n - spread.shape[1])
            covariance = (second - rows_per_mean * (spread @ spread.T)) / freedom
            if n == 0 or not covariance.isfinite().all():
                raise ValueError(
                    f"scale {i}: the covariance of {n} positions does not exist or is not finite"
                )
            means[i].copy_(centres[i].cpu().view_as(means[i]) + average)
            self.get_buffer(f"whitening_{i}").copy_(
                compute_whitening(covariance, min(1.0, len(covariance) / freedom))
            )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Compute the energy of every position: per scale (N, C_i, H_i, W_i) to (N, H_i, W_i).

        Raises:
            ValueError: the maps have other sizes than the means of positions.
        """
        if self.sizes is not None and (found := tuple(tuple(x.shape[2:]) for x in maps)) != self.sizes:
            raise ValueError(f"PositionGaussian expected maps of {self.sizes}; got {found}")
        return [position_energy(x, *self.folded(i)) for i, x in enumerate(maps)]

    def position_share(self) -> float:
        """Compute the share of the variance that lies between positions' means, averaged over scales.

        0 if all positions are alike or share one mean; 1 if parts lie in the same place and do not differ.
        With n images, up to 1 / n is chance.
        """
        if self.sizes is None:
            return 0.0
        shares: list[float] = []
        for i in range(len(self.channels)):
            between = self.get_buffer(f"mean_{i}").double().flatten(1).var(1, correction=0).sum()
            # W W^T is the inverse of the covariance of the deviations.
            whitening = self.get_buffer(f"whitening_{i}").double()
            within = torch.linalg.inv(whitening).square().sum()
            shares.append(float(between / (between + within)))
        return sum(shares) / len(shares)

    def folded(self, i: int) -> tuple[Tensor, Tensor]:
        """Return kernel and offset of `position_energy` for scale i."""
        whitening, mean = self.get_buffer(f"whitening_{i}"), self.get_buffer(f"mean_{i}")
        return whitening.T[:, :, None, None].contiguous(), torch.tensordot(whitening.T, mean, 1)


def position_energy(x: Tensor, kernel: Tensor, offset: Tensor) -> Tensor:
    """Compute 1/2 mean_C ((x - m) W)^2 in one convolution: (N, C, H, W) to (N, H, W).

    Args:
        x: normalised features of a scale.
        kernel: (C, C, 1, 1), transpose of W.
        offset: m W, (C,) or, per position, (C, H, W).
    """
    z = F.conv2d(x, kernel, -offset) if offset.dim() == 1 else F.conv2d(x, kernel) - offset
    return 0.5 * z.square().mean(1)


class ImageGaussian(nn.Module):
    """Gaussian of whole images: of each channel's mean and deviation over the positions.

    It detects what no single position shows: a part of another kind, a wrong shade, a texture that differs
    slightly everywhere. It uses the two coarsest scales, or the only one; in measurements finer scales add
    noise.

    Args:
        channels: channels of each scale, finest first.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.first = max(0, len(channels) - 2)
        self.channels = tuple(channels[self.first :])
        for i, c in enumerate(self.channels):
            self.register_buffer(f"mean_{i}", torch.zeros(2 * c))
            self.register_buffer(f"whitening_{i}", _identity(2 * c))

    def fit(self, batches: Iterable[Sequence[Tensor]]) -> None:
        """Set mean and covariance from batches of normalised feature maps of the training set.

        Args:
            batches: per batch one (N, C_i, H_i, W_i) per scale; iterated once.

        Raises:
            ValueError: there are no batches, or a feature is not finite.
        """
        self.fit_descriptions([self.describe(maps) for maps in batches])

    def fit_descriptions(self, batches: Sequence[Sequence[Tensor]]) -> None:
        """Set mean and covariance from the `describe` results of the training set.

        There are often fewer images than channels, so the covariance is Ledoit and Wolf's (2004, "A
        well-conditioned estimator for large-dimensional covariance matrices").

        Args:
            batches: per batch one (N, 2 C_i) per scale used.

        Raises:
            ValueError: there are no batches, or a number is not finite.
        """
        from sklearn.covariance import (
            ledoit_wolf,
        )  # imported late: it takes a second, serving does not need it

        for i in range(len(self.channels)):
            x = torch.cat([batch[i].double().cpu() for batch in batches]) if batches else torch.empty(0, 1)
            if len(x) == 0 or not x.isfinite().all():
                raise ValueError(
                    f"scale {i}: the covariance of {len(x)} images does not exist or is not finite"
                )
            mean, std = x.mean(0), x.std(0, correction=0).clamp_min(1e-6)
            z = (x - mean) / std
            # A single image gives only the mean; scikit-learn would warn.
            matrix = ledoit_wolf(z.numpy(), assume_centered=True)[0] if len(z) > 1 else (z.T @ z).numpy()
            correlation = torch.from_numpy(matrix)
            self.get_buffer(f"mean_{i}").copy_(mean)
            self.get_buffer(f"whitening_{i}").copy_(compute_whitening(correlation * std.outer(std)))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Compute the energy of every image: per scale (N, C_i, H_i, W_i) to (N, S'), S' scales used."""
        energies = []
        for i, x in enumerate(self.describe(maps)):
            z = (x - self.get_buffer(f"mean_{i}")) @ self.get_buffer(f"whitening_{i}")
            energies.append(0.5 * z.square().mean(1))
        return torch.stack(energies, 1)

    def describe(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Describe images: from all scales (N, C_i, H_i, W_i) to (N, 2 C_i) per scale used."""
        described = []
        for x in maps[self.first :]:
            mean = x.mean((2, 3), keepdim=True)
            # Not mean square minus squared mean: the difference loses digits of values far from 0.
            variance = (x - mean).square().mean((2, 3))
            described.append(torch.cat([mean.flatten(1), variance.sqrt()], 1))
        return described


def compute_whitening(covariance: Tensor, shrinkage: float = 0.0) -> Tensor:
    """Compute W with (x - m) W white: D^-1/2 V L^-1/2 of the correlation V L V^T, shrunk to the identity."""
    variance = covariance.diagonal()
    average = variance.mean()
    # If nothing varies there is no scale, and features keep theirs.
    floored = variance.clamp_min(_VARIANCE_FLOOR * average) if average > 1e-12 else torch.ones_like(variance)
    std = floored.sqrt()
    correlation = (covariance / std.outer(std)).fill_diagonal_(1)
    correlation = (1 - shrinkage) * correlation + shrinkage * torch.eye(len(std), dtype=correlation.dtype)
    values, vectors = torch.linalg.eigh(correlation)
    matrix: Tensor = vectors * values.clamp_min(_VARIANCE_FLOOR).rsqrt() / std[:, None]
    return matrix


def _identity(n: int) -> Tensor:
    # torch.eye on the meta device, which gives the shapes of bundles, imports all of torch's compiler.
    return torch.zeros(n, n).fill_diagonal_(1)
