"""Base distributions of the latents."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """Compute log N(z; 0, I) = -1/2 |z|^2 - D/2 log(2 pi) for every row.

    Args:
        z: (N, ...), D values per row; (N,) has D = 1.

    Returns:
        (N,), in nats.
    """
    dimensions = z.shape[1:].numel()
    squares = z.square()
    if z.ndim > 1:  # torch sums over all dimensions if given none
        # Not flattened first: flattening channels-last maps copies them.
        squares = squares.sum(tuple(range(1, z.ndim)))
    return -0.5 * squares - 0.5 * dimensions * math.log(2 * math.pi)


class Distribution(nn.Module, ABC):
    """Distribution over events of one shape, with cheap densities and samples.

    Args:
        event_shape: shape of one event, (D,) or (C, H, W).

    Raises:
        ValueError: the shape is empty.
    """

    def __init__(self, event_shape: Sequence[int]) -> None:
        super().__init__()
        if not event_shape:
            raise ValueError(f"{type(self).__name__} expected (D,) or (C, H, W); got {tuple(event_shape)}")
        self.event_shape = tuple(event_shape)
        # Samples get the dtype and device of this buffer, so that they follow `Flow.to(...)`.
        self.register_buffer("origin", torch.zeros(()), persistent=False)
        self.origin: Tensor

    @abstractmethod
    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Return log p(z) in nats, (N,), for z of shape (N, *event_shape)."""

    def sample(
        self,
        n: int,
        *,
        context: Tensor | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw n events, (n, *event_shape).

        Args:
            n: number of events.
            context: (n, ...), one row per event, for a conditional distribution.
            temperature: factor of every value's distance from its centre (Kingma and Dhariwal 2018, arXiv
                1807.03039, section 6); below 1, likelier events.
            generator: source of the random numbers.
        """
        return self._from_noise(self._noise(n, generator), temperature, context)

    def _check(self, z: Tensor) -> None:
        if tuple(z.shape[1:]) != self.event_shape:
            raise ValueError(
                f"{type(self).__name__} expected shape (N, {', '.join(map(str, self.event_shape))}); "
                f"got {tuple(z.shape)}"
            )

    def _noise(self, n: int, generator: torch.Generator | None) -> Tensor:
        """Draw the input of `_from_noise`, (n, *event_shape); by default standard normal."""
        shape = (n, *self.event_shape)
        return torch.randn(shape, dtype=self.origin.dtype, device=self.origin.device, generator=generator)

    def _from_noise(self, noise: Tensor, temperature: float, context: Tensor | None) -> Tensor:
        """Transform noise, (n, *event_shape), to samples of the distribution."""
        return temperature * noise


class StandardNormal(Distribution):
    """Standard normal N(0, I).

        log p(z) = -1/2 |z|^2 - D/2 log(2 pi)

    >>> StandardNormal((2,)).log_prob(torch.zeros(1, 2)).item()  # -log(2 pi)
    -1.8378770351409912
    """

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        self._check(z)
        return standard_normal_log_prob(z)


class StandardLogistic(Distribution):
    """Standard logistic distribution of independent values.

        log p(z) = sum of -softplus(z) - softplus(-z)

    The prior of NICE (Dinh et al. 2015, arXiv 1410.8516, section 3.4). Its gradient is bounded, and its tails
    are heavier than the normal's.

    >>> StandardLogistic((1,)).log_prob(torch.zeros(1, 1)).exp().item()
    0.25
    """

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        self._check(z)
        # Not softplus: torch's is linear from 20 on, which makes a step in double precision.
        return (logsigmoid(z) + logsigmoid(-z)).flatten(1).sum(1)

    def _noise(self, n: int, generator: torch.Generator | None) -> Tensor:
        shape = (n, *self.event_shape)
        # In single precision at least: half has too few numbers between 0 and 1 for the tails.
        dtype = torch.promote_types(self.origin.dtype, torch.float32)
        u = torch.rand(shape, dtype=dtype, device=self.origin.device, generator=generator)
        # rand can give 0, whose logit is infinite.
        eps = torch.finfo(dtype).eps
        return torch.logit(u.clamp(eps, 1 - eps)).to(self.origin.dtype)


class DiagonalNormal(Distribution):
    """Normal distribution N(mu, diag(exp(2 s))) with learned mu and s.

    It starts as the standard normal.

    >>> DiagonalNormal((1, 2, 2)).sample(5).shape
    torch.Size([5, 1, 2, 2])
    """

    def __init__(self, event_shape: Sequence[int]) -> None:
        super().__init__(event_shape)
        self.mean = nn.Parameter(torch.zeros(self.event_shape))
        self.log_deviation = nn.Parameter(torch.zeros(self.event_shape))

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        self._check(z)
        standardised = (z - self.mean) * (-self.log_deviation).exp()
        return standard_normal_log_prob(standardised) - self.log_deviation.sum()

    def _from_noise(self, noise: Tensor, temperature: float, context: Tensor | None) -> Tensor:
        return self.mean + temperature * self.log_deviation.exp() * noise
