"""Seamless blending of the energies of overlapping tiles."""

import torch
from torch import Tensor

from flows.fastflow.imaging.geometry import TileLayout


class TileBlender:
    """Weighted mean of the energies of overlapping tiles, pixel by pixel.

    A tile's weight is a Hann window over its overlaps: 1 in its middle and towards 0 at its edges, where the
    backbone and the flow see zeros instead of the neighbourhood. Weights are divided by their sum at every
    pixel, a partition of unity. The mean is updated tile by tile (D. H. D. West, Updating mean and variance
    estimates: an improved method, Communications of the ACM 22 (9), 1979), which preserves a constant to
    the last bit.

    Memory does not grow with the number of tiles.

    Args:
        layout: positions of the tiles.
        scales: S, energies per pixel.
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
        """Return the energies of the image, (1, S, height, width), after all tiles were added."""
        rows, columns = self._layout.inside
        return self._mean[None, :, rows, columns]


def _window(tile: int, starts: tuple[int, ...], device: torch.device) -> Tensor:
    """Compute the weights of a tile's rows or columns, all above 0."""
    if len(starts) == 1:
        return torch.ones(tile, device=device)
    overlap = tile - (starts[1] - starts[0])
    ramp = ((torch.arange(tile, dtype=torch.float64) + 0.5) / overlap).clamp_max(1)
    rising = (torch.pi / 2 * ramp).sin().square()
    return torch.minimum(rising, rising.flip(0)).float().to(device)
