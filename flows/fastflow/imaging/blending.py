"""Energies of overlapping tiles, put together to those of the picture without a seam."""

import torch
from torch import Tensor

from flows.fastflow.imaging.geometry import TileLayout


class TileBlender:
    """The weighted mean of what overlapping tiles say of each pixel.

    A tile's weight is a Hann window over its overlaps: 1 in its middle and towards 0 at its edges, where the
    backbone and the flow see zeros instead of the neighbourhood. Weights are divided by their sum at every
    pixel, a partition of unity; the mean is updated tile by tile (D. H. D. West, Updating mean and variance
    estimates: an improved method, Communications of the ACM 22 (9), 1979), which leaves a constant the same
    to the last bit.

    Memory is that of the result, however many tiles there are.

    Args:
        layout: where the tiles lie.
        scales: S, energies of each pixel.
        device: where to compute.
    """

    def __init__(self, layout: TileLayout, scales: int, device: torch.device) -> None:
        self._layout = layout
        self._mean = torch.zeros((scales, *layout.canvas), device=device)
        self._weight = torch.zeros(layout.canvas, device=device)
        rows = _window(layout.tile[0], layout.tops, device)
        self._window = rows[:, None] * _window(layout.tile[1], layout.lefts, device)
        self._corners = layout.corners()

    def add(self, q: Tensor) -> None:
        """Add the energies of the next tiles, (N, S, h, w), in the layout's order."""
        h, w = self._layout.tile
        for tile in q:
            top, left = next(self._corners)
            mean = self._mean[:, top : top + h, left : left + w]
            weight = self._weight[top : top + h, left : left + w]
            weight += self._window
            mean += (tile - mean) * (self._window / weight)

    def result(self) -> Tensor:
        """The energies of the picture, (1, S, height, width), when all tiles were added."""
        rows, columns = self._layout.inside
        return self._mean[None, :, rows, columns]


def _window(tile: int, starts: tuple[int, ...], device: torch.device) -> Tensor:
    """Weights of a tile's rows or columns, above 0."""
    if len(starts) == 1:
        return torch.ones(tile, device=device)
    overlap = tile - (starts[1] - starts[0])
    ramp = ((torch.arange(tile, dtype=torch.float64) + 0.5) / overlap).clamp_max(1)
    rising = (torch.pi / 2 * ramp).sin().square()
    return torch.minimum(rising, rising.flip(0)).float().to(device)
