"""Monotone rational-quadratic splines (Gregory and Delbourgo 1982), as functions of tensors."""

import torch
from torch import Tensor


def rational_quadratic(
    x: Tensor, positions: Tensor, values: Tensor, derivatives: Tensor
) -> tuple[Tensor, Tensor]:
    """Evaluate an increasing spline through given knots, the identity outside the outer knots.

    Durkan et al. 2019, arXiv 1906.04032, eq. 4 and 5.

    Args:
        x: any shape.
        positions: increasing positions of the knots, (*x.shape, K + 1).
        values: increasing values at the knots, same shape; the outer values equal the outer positions.
        derivatives: positive derivatives at the knots, same shape; 1 at both ends for a smooth transition.

    Returns:
        The spline at x and the logarithm of its derivative, both shaped like x.
    """
    inside = (x > positions[..., 0]) & (x < positions[..., -1])
    left, width, bottom, height, d0, d1 = _bin(x, positions, positions, values, derivatives)
    slope = height / width
    xi = torch.where(inside, (x - left) / width, 0.5).clamp(0, 1)
    value, log_slope = _at(xi, slope, d0, d1)
    return torch.where(inside, bottom + height * value, x), torch.where(inside, log_slope, 0.0)


def rational_quadratic_inverse(
    y: Tensor, positions: Tensor, values: Tensor, derivatives: Tensor
) -> tuple[Tensor, Tensor]:
    """Invert `rational_quadratic` (eq. 6 to 8); return x and the log-derivative of the inverse.

    It can be differentiated twice.
    """
    inside = (y > values[..., 0]) & (y < values[..., -1])
    left, width, bottom, height, d0, d1 = _bin(y, values, positions, values, derivatives)
    slope = height / width
    rise = torch.where(inside, y - bottom, height / 2)
    a = height * (slope - d0) + rise * (d0 + d1 - 2 * slope)
    b = height * d0 - rise * (d0 + d1 - 2 * slope)
    c = -slope * rise
    # The form of the root that adds terms of the same sign: b > 0 at the root.
    root = (b.square() - 4 * a * c).clamp_min(torch.finfo(y.dtype).tiny).sqrt()
    start = (2 * c / (-b - root)).clamp(0, 1).detach()
    # The quadratic loses digits in bins with a steep and a flat end; a Newton step restores them. Two steps
    # carry the first and second derivative of the implicit function.
    xi = start
    for _ in range(2):
        value, log_slope = _at(xi, slope, d0, d1)
        xi = (xi - (value - rise / height) / (log_slope.exp() / slope)).clamp(0, 1)
    x = left + width * xi
    return torch.where(inside, x, y), torch.where(inside, -_at(xi, slope, d0, d1)[1], 0.0)


def _bin(
    at: Tensor, edges: Tensor, positions: Tensor, values: Tensor, derivatives: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return each element's bin: left, width, bottom, height, derivatives at both ends."""
    # Counting compiles and batches everywhere, which a search does not; K is small.
    index = (at[..., None] >= edges[..., 1:-1]).sum(-1, keepdim=True)  # (..., 1)

    def pick(knots: Tensor, shift: int) -> Tensor:
        return knots.gather(-1, index + shift).squeeze(-1)

    left, bottom = pick(positions, 0), pick(values, 0)
    width, height = pick(positions, 1) - left, pick(values, 1) - bottom
    return left, width, bottom, height, pick(derivatives, 0), pick(derivatives, 1)


def _at(xi: Tensor, slope: Tensor, d0: Tensor, d1: Tensor) -> tuple[Tensor, Tensor]:
    """Return the relative height at xi in [0, 1] of a bin, and the log-derivative there."""
    rest = 1 - xi
    denominator = slope + (d0 + d1 - 2 * slope) * xi * rest
    value = xi * (slope * xi + d0 * rest) / denominator
    numerator = d1 * xi.square() + 2 * slope * xi * rest + d0 * rest.square()
    return value, 2 * slope.log() + numerator.log() - 2 * denominator.log()
