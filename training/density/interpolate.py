"""Interpolation between two images through the latents of a flow."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from flows import DiagonalNormal, Flow
from training.density.fit import batch_rows


@torch.no_grad()
def interpolate(flow: Flow, start: Tensor, end: Tensor, points: int) -> Tensor:
    """Interpolate images from each start to its end.

    The path is spherical (slerp: Shoemake 1985, "Animating rotation with quaternion curves"; for generative
    models White 2016, arXiv 1609.04468). In many dimensions normal latents lie near |z| = sqrt(D). A straight
    line passes at about 0.7 of that, where the flow has seen no image. The centre is the base's mean, and
    the units are its deviations if they are learned.

    Args:
        start: (N, ...), inputs of the flow.
        end: (N, ...).
        points: number of points including both ends; at least 2.

    Returns:
        (N, points, ...); the first and the last of each row are the given images, as the flow inverts them.

    Raises:
        ValueError: there are fewer than 2 points.
    """
    if points < 2:
        raise ValueError(f"an interpolation needs at least 2 points, its ends; got {points}")
    a, b = _standardised(flow, start), _standardised(flow, end)  # (N, D)
    latents = torch.stack([slerp(a, b, i / (points - 1)) for i in range(points)], 1)  # (N, points, D)
    # Large batches: an inverse may take D passes, whatever the number of rows.
    batches = torch.split(latents.flatten(0, 1), batch_rows(a.shape[1]))
    ways = torch.cat([_unstandardised(flow, batch) for batch in batches])
    return ways.view(len(a), points, *ways.shape[1:])


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Interpolate spherically between the rows of a and b, (N, D): a at t = 0, b at t = 1.

    (sin((1 - t) w) a + sin(t w) b) / sin w with w the angle between them; linear for w near 0 or pi.
    """
    u, v = normalize(a), normalize(b)
    # The arc cosine loses half of the digits at angles near 0 and pi.
    angle = 2 * torch.atan2((u - v).norm(dim=1, keepdim=True), (u + v).norm(dim=1, keepdim=True))
    sine = angle.sin()
    straight = sine < 1e-4
    safe = torch.where(straight, 1.0, sine)
    before = torch.where(straight, 1 - t, ((1 - t) * angle).sin() / safe)
    after = torch.where(straight, t, (t * angle).sin() / safe)
    return before * a + after * b


def _standardised(flow: Flow, x: Tensor) -> Tensor:
    z = flow.transform.forward(x)[0]
    if isinstance(flow.base, DiagonalNormal):
        z = (z - flow.base.mean) * (-flow.base.log_deviation).exp()
    return z.flatten(1)


def _unstandardised(flow: Flow, z: Tensor) -> Tensor:
    z = z.reshape(len(z), *flow.base.event_shape)
    if isinstance(flow.base, DiagonalNormal):
        z = flow.base.mean + flow.base.log_deviation.exp() * z
    return flow.transform.inverse(z)[0]
