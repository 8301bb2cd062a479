"""Gaussian with a covariance per cell of positions, for the score of whole images.

A covariance that all positions share is dominated by the positions that vary most. On a quiet background or
a part in a fixed place, it accepts deviations that no good part shows there.
"""

from collections.abc import Iterable
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flows.fastflow.model.gaussian import compute_whitening

_MAX_SIDE: Final = 8
_CHANNELS_OF_ONE_CELL: Final = 1024
# Smallest spread of a cell, as a share of the average: rounding is no anomaly where good parts never differ.
_MIN_SPREAD: Final = 0.01


def cells_per_side(channels: int) -> int | None:
    """Return the number of cells along each side that takes at most 4 MiB; None if that is one cell."""
    side = min(_MAX_SIDE, _CHANNELS_OF_ONE_CELL // channels)
    return side if side > 1 else None


class CellGaussian(nn.Module):
    """Gaussian of one scale with a mean per position and a covariance per cell of neighbouring positions.

    PaDiM (Defard et al. 2021, arXiv 2011.08785) has a covariance per position. Here a cell of positions
    shares one, which takes fewer images and less memory. Each is shrunk towards the average covariance,
    scaled to the cell's variance, as by an inverse Wishart prior that weighs as much as C observations:

        (n S_k + C t_k S) / (n + C),    t_k = tr S_k / tr S,    n observations of cell k

    Args:
        channels: C, channels of the scale.
        size: (H, W) of the scale.
        side: cells along each side, at most.
    """

    def __init__(self, channels: int, size: tuple[int, int], side: int) -> None:
        super().__init__()
        self.side = side
        self.cell = -(-size[0] // side), -(-size[1] // side)
        self.padding = -size[0] % self.cell[0], -size[1] % self.cell[1]
        count = -(-size[0] // self.cell[0]) * -(-size[1] // self.cell[1])
        self.register_buffer("mean", torch.zeros(channels, *size))
        self.register_buffer("whitening", torch.zeros(count, channels, channels))
        self.mean: Tensor
        self.whitening: Tensor

    def fit(self, mean: Tensor, batches: Iterable[Tensor]) -> None:
        """Set the covariances from the training set's mean (C, H, W) and normalised features (N, C, H, W)."""
        self.mean.copy_(mean)
        images, channels = 0, len(mean)
        second = torch.zeros(self.whitening.shape, dtype=torch.float64)
        for x in batches:
            images += len(x)
            rows = self._cells(x - mean)
            second += (rows.mT @ rows).double().cpu()
        # The means take the degrees of freedom of one image.
        n = max(1, images - 1) * self._cells(torch.ones(1, 1, *mean.shape[1:])).double().sum((1, 2))
        covariance = second / n[:, None, None]
        traces = covariance.diagonal(dim1=1, dim2=2).sum(1)
        share = (traces / traces.mean().clamp_min(1e-12)).clamp_min(_MIN_SPREAD)
        own = (n / (n + channels))[:, None, None]
        prior = share[:, None, None] * covariance.mean(0)
        shrunk = own * covariance + (1 - own) * prior
        self.whitening.copy_(torch.stack([compute_whitening(matrix) for matrix in shrunk]))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the largest energy of an image's positions: (N, C, H, W) to (N,)."""
        z = self._cells(x - self.mean) @ self.whitening
        energies = 0.5 * z.square().mean(2)
        return energies.reshape(len(energies), -1, self.cell[0] * self.cell[1]).amax((0, 2))

    def _cells(self, x: Tensor) -> Tensor:
        """Group positions by cells: (N, C, H, W) to (cells, N x positions, C), zeros beyond the map."""
        (height, width), (bottom, right) = self.cell, self.padding
        x = F.pad(x, (0, right, 0, bottom))
        # Six axes: images, channels, rows of cells, rows in a cell, columns of cells, columns in a cell.
        x = torch.unflatten(torch.unflatten(x, 3, (-1, width)), 2, (-1, height))
        return x.permute(2, 4, 0, 3, 5, 1).flatten(0, 1).flatten(1, 3)
