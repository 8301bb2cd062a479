"""Gaussian models of features: of every position, and of whole pictures.

Where a flow is free to shrink what it has never seen (an affine coupling may answer a strange input with a
small scale), a Gaussian is not: its energy grows with the square of the distance. The two err in different
places, so `score` takes both into account.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Variances below this share of an average one are taken for it: a direction in which good parts never differ
# would otherwise turn rounding into an anomaly.
_VARIANCE_FLOOR = 1e-6


class PositionGaussian(nn.Module):
    """A Gaussian with full covariance over the channels, the same at every position.

    Its energy is half the squared Mahalanobis distance per channel, so that good parts lie near 1/2 as the
    flow's latents do. PaDiM has a mean and a covariance for each position (Defard et al. 2021, arXiv
    2011.08785, section 3). Here positions may have a mean of their own, which one picture in a hundred moves
    by little, but share the covariance of what is left: a matrix for each would take more pictures than
    there are, and a hundred times the memory. Parts need not lie in the same place: where they do not,
    positions' means are all alike.

    Args:
        channels: channels of each scale.
        sizes: (H_i, W_i) of each scale, for a mean of each position; by default all positions have one.
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

        The correlation is shrunk towards the identity by C / n, n positions (of all pictures but one where
        each has a mean): nothing where there are many, and enough to stay invertible where there are fewer
        positions than channels.

        Args:
            batches: per batch one (N, C_i, H_i, W_i) per scale; gone through once.

        Raises:
            ValueError: there are no batches, or a feature is not finite.
        """
        means = [self.get_buffer(f"mean_{i}") for i in range(len(self.channels))]
        firsts = [torch.zeros_like(mean, dtype=torch.float64, device="cpu") for mean in means]
        seconds = [torch.zeros(c, c, dtype=torch.float64) for c in self.channels]
        pictures, positions = 0, [0] * len(self.channels)
        over = (0, 2, 3) if self.sizes is None else (0,)
        centres: list[Tensor] = []
        for maps in batches:
            # About where the mean is: a product of what lies far from 0 has no digits left for deviations.
            centres = centres or [x.mean(over, keepdim=True) for x in maps]
            pictures += len(maps[0])
            for i, (x, centre) in enumerate(zip(maps, centres, strict=True)):
                offset = x - centre
                rows = offset.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
                positions[i] += len(rows)
                firsts[i] += offset.sum(over, dtype=torch.float64).cpu()
                # Products in double are several times slower, and a batch's in single are exact enough.
                seconds[i] += (rows.T @ rows).double().cpu()
        for i, (n, first, second) in enumerate(zip(positions, firsts, seconds, strict=True)):
            rows_each = n if self.sizes is None else pictures  # of a mean
            average = first / rows_each
            spread = average.reshape(len(average), -1)
            # A mean of each position takes one picture's worth of deviations away.
            left = n if self.sizes is None else max(1, n - spread.shape[1])
            covariance = (second - rows_each * (spread @ spread.T)) / left
            if n == 0 or not covariance.isfinite().all():
                raise ValueError(f"scale {i}: no covariance of {n} positions, or not a finite one")
            means[i].copy_(centres[i].cpu().view_as(means[i]) + average)
            self.get_buffer(f"whitening_{i}").copy_(_whitening(covariance, min(1.0, len(covariance) / left)))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Energy of every position: per scale (N, C_i, H_i, W_i) to (N, H_i, W_i).

        Raises:
            ValueError: maps are not of the sizes that positions have means for.
        """
        if self.sizes is not None and (found := tuple(tuple(x.shape[2:]) for x in maps)) != self.sizes:
            raise ValueError(f"PositionGaussian expected maps of {self.sizes}; got {found}")
        return [position_energy(x, *self.folded(i)) for i, x in enumerate(maps)]

    def position_share(self) -> float:
        """Share of the features' variance that lies between positions' means, in the mean over the scales.

        From 0, where all positions are alike or have one mean, to 1, where parts stand in the same place and
        differ in nothing. Of n pictures up to 1 / n of it is chance.
        """
        if self.sizes is None:
            return 0.0
        shares: list[float] = []
        for i in range(len(self.channels)):
            between = self.get_buffer(f"mean_{i}").double().flatten(1).var(1, correction=0).sum()
            # W W^T is the inverse of the covariance of what is left.
            whitening = self.get_buffer(f"whitening_{i}").double()
            within = torch.linalg.inv(whitening).square().sum()
            shares.append(float(between / (between + within)))
        return sum(shares) / len(shares)

    def folded(self, i: int) -> tuple[Tensor, Tensor]:
        """What `position_energy` takes for scale i."""
        whitening, mean = self.get_buffer(f"whitening_{i}"), self.get_buffer(f"mean_{i}")
        return whitening.T[:, :, None, None].contiguous(), torch.tensordot(whitening.T, mean, 1)


def position_energy(x: Tensor, kernel: Tensor, offset: Tensor) -> Tensor:
    """1/2 mean_C ((x - m) W)^2 of every position, in one convolution: (N, C, H, W) to (N, H, W).

    Args:
        x: normalised features of a scale.
        kernel: (C, C, 1, 1), W turned round.
        offset: m W, (C,) or, of each position, (C, H, W).
    """
    z = F.conv2d(x, kernel, -offset) if offset.dim() == 1 else F.conv2d(x, kernel) - offset
    return 0.5 * z.square().mean(1)


class ImageGaussian(nn.Module):
    """A Gaussian over what a whole picture looks like: each channel's mean and deviation over the positions.

    Sees what no single position shows: a part of another kind, a wrong shade, a texture that is everywhere a
    little off. Of the two coarsest scales, or the only one; finer ones, measured, add noise.

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
            batches: per batch one (N, C_i, H_i, W_i) per scale; gone through once.

        Raises:
            ValueError: there are no batches, or a feature is not finite.
        """
        self.fit_descriptions([self.describe(maps) for maps in batches])

    def fit_descriptions(self, looks: Sequence[Sequence[Tensor]]) -> None:
        """Set mean and covariance from what `describe` says of the training set.

        There are often fewer pictures than channels, so the covariance is Ledoit and Wolf's (2004, "A
        well-conditioned estimator for large-dimensional covariance matrices").

        Args:
            looks: per batch one (N, 2 C_i) per scale used.

        Raises:
            ValueError: there are no batches, or a number is not finite.
        """
        from sklearn.covariance import ledoit_wolf  # takes a second, which serving need not wait for

        for i in range(len(self.channels)):
            x = torch.cat([look[i].double().cpu() for look in looks]) if looks else torch.empty(0, 1)
            if len(x) == 0 or not x.isfinite().all():
                raise ValueError(f"scale {i}: no covariance of {len(x)} pictures, or not a finite one")
            mean, std = x.mean(0), x.std(0, correction=0).clamp_min(1e-6)
            z = (x - mean) / std
            # Of a single picture, of which scikit-learn would warn, nothing is known but the mean.
            found = ledoit_wolf(z.numpy(), assume_centered=True)[0] if len(z) > 1 else (z.T @ z).numpy()
            correlation = torch.from_numpy(found)
            self.get_buffer(f"mean_{i}").copy_(mean)
            self.get_buffer(f"whitening_{i}").copy_(_whitening(correlation * std.outer(std), 0.0))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Energy of every picture: per scale (N, C_i, H_i, W_i) to (N, S'), S' of the scales used."""
        energies = []
        for i, x in enumerate(self.describe(maps)):
            z = (x - self.get_buffer(f"mean_{i}")) @ self.get_buffer(f"whitening_{i}")
            energies.append(0.5 * z.square().mean(1))
        return torch.stack(energies, 1)

    def describe(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """What a picture looks like: of all scales (N, C_i, H_i, W_i), to (N, 2 C_i) of each one used."""
        described = []
        for x in maps[self.first :]:
            mean = x.mean((2, 3), keepdim=True)
            # Not the mean square less the mean's: of what lies far from 0 the difference has no digits left.
            variance = (x - mean).square().mean((2, 3))
            described.append(torch.cat([mean.flatten(1), variance.sqrt()], 1))
        return described


def _whitening(covariance: Tensor, shrinkage: float) -> Tensor:
    """The matrix W with (x - m) W white: D^-1/2 V L^-1/2 of the correlation V L V^T."""
    variance = covariance.diagonal()
    average = variance.mean()
    # Where nothing differs there is no scale to measure by, and features count as they are.
    floored = variance.clamp_min(_VARIANCE_FLOOR * average) if average > 1e-12 else torch.ones_like(variance)
    std = floored.sqrt()
    correlation = (covariance / std.outer(std)).fill_diagonal_(1)
    correlation = (1 - shrinkage) * correlation + shrinkage * torch.eye(len(std), dtype=correlation.dtype)
    values, vectors = torch.linalg.eigh(correlation)
    whitening: Tensor = vectors * values.clamp_min(_VARIANCE_FLOOR).rsqrt() / std[:, None]
    return whitening


def _identity(n: int) -> Tensor:
    # On the meta device, where bundles' shapes are learned, torch.eye imports all of torch's compiler.
    return torch.zeros(n, n).fill_diagonal_(1)
