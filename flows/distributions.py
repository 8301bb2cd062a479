"""Base distributions of the latents."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, I) = -1/2 |z|^2 - D/2 log(2 pi), summed over all but the first dimension.

    Args:
        z: (N, ...), D values per row; one of (N,).

    Returns:
        (N,), in nats.
    """
    dimensions = z.shape[1:].numel()
    squares = z.square()
    if z.ndim > 1:  # the sum over no dimension would be that over all
        # Summed as it lies: to flatten maps that are laid out channels-last is to copy them.
        squares = squares.sum(tuple(range(1, z.ndim)))
    return -0.5 * squares - 0.5 * dimensions * math.log(2 * math.pi)


class Distribution(nn.Module, ABC):
    """A distribution over events of a given shape, of which densities and samples are cheap.

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
        # Samples take this buffer's dtype and device, so that they follow `Flow.to(...)`.
        self.register_buffer("origin", torch.zeros(()), persistent=False)
        self.origin: Tensor

    @abstractmethod
    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats, (N,), of z with shape (N, *event_shape)."""

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
            n: how many.
            context: (n, ...), a row for each event, where the distribution depends on one.
            temperature: multiplies the distance of every value from its centre (Kingma and Dhariwal 2018,
                arXiv 1807.03039, section 6); below 1, likelier events.
            generator: of the random numbers.
        """
        return self._place(self._noise(n, generator), temperature, context)

    def _check(self, z: Tensor) -> None:
        if tuple(z.shape[1:]) != self.event_shape:
            raise ValueError(
                f"{type(self).__name__} expected shape (N, {', '.join(map(str, self.event_shape))}); "
                f"got {tuple(z.shape)}"
            )

    def _noise(self, n: int, generator: torch.Generator | None) -> Tensor:
        """(n, *event_shape) of what the distribution is made from: standard normal numbers, unless said."""
        shape = (n, *self.event_shape)
        return torch.randn(shape, dtype=self.origin.dtype, device=self.origin.device, generator=generator)

    def _place(self, noise: Tensor, temperature: float, context: Tensor | None) -> Tensor:
        """Bring noise, (n, *event_shape), to where the distribution is."""
        return temperature * noise


class StandardNormal(Distribution):
    """The standard normal N(0, I).

    >>> StandardNormal((2,)).log_prob(torch.zeros(1, 2)).item()  # -log(2 pi)
    -1.8378770351409912
    """

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        self._check(z)
        return standard_normal_log_prob(z)


class StandardLogistic(Distribution):
    """The standard logistic distribution: log p(z) = sum of -softplus(z) - softplus(-z).

    NICE's prior (Dinh et al. 2015, arXiv 1410.8516, section 3.4): its gradients are bounded, and its tails
    heavier than the normal's.

    >>> StandardLogistic((1,)).log_prob(torch.zeros(1, 1)).exp().item()
    0.25
    """

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        self._check(z)
        # Not by softplus, which torch cuts off from 20 on: in double precision the density had a step there.
        return (logsigmoid(z) + logsigmoid(-z)).flatten(1).sum(1)

    def _noise(self, n: int, generator: torch.Generator | None) -> Tensor:
        shape = (n, *self.event_shape)
        # In single precision at least: half has too few numbers between 0 and 1 for its tails.
        dtype = torch.promote_types(self.origin.dtype, torch.float32)
        u = torch.rand(shape, dtype=dtype, device=self.origin.device, generator=generator)
        # rand can give 0, whose logit is infinite.
        eps = torch.finfo(dtype).eps
        return torch.logit(u.clamp(eps, 1 - eps)).to(self.origin.dtype)


class DiagonalNormal(Distribution):
    """A normal of independent values with learned means and deviations, N(mu, diag(exp(2 s))).

    Starts as the standard normal.

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

    def _place(self, noise: Tensor, temperature: float, context: Tensor | None) -> Tensor:
        return self.mean + temperature * self.log_deviation.exp() * noise


class ConditionalDiagonalNormal(Distribution):
    """A normal of independent values whose means and deviations a network computes from the context.

    >>> base = ConditionalDiagonalNormal((2,), torch.nn.Linear(3, 4))
    >>> base.sample(5, context=torch.zeros(5, 3)).shape
    torch.Size([5, 2])

    Args:
        event_shape: shape of one event; D values.
        network: maps a context, (N, ...), to (N, 2 D): the means, then the logarithms of the deviations. It
            sees floating numbers in the dtype of its parameters, and others, such as classes, as they are.
    """

    def __init__(self, event_shape: Sequence[int], network: nn.Module) -> None:
        super().__init__(event_shape)
        self.network = network

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        self._check(z)
        mean, log_deviation = self._mean_and_log_deviation(z.shape[0], context)
        standardised = (z - mean) * (-log_deviation).exp()
        return standard_normal_log_prob(standardised) - log_deviation.flatten(1).sum(1)

    def _place(self, noise: Tensor, temperature: float, context: Tensor | None) -> Tensor:
        mean, log_deviation = self._mean_and_log_deviation(len(noise), context)
        return mean + temperature * log_deviation.exp() * noise

    def _mean_and_log_deviation(self, rows: int, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Means and log-deviations, each (rows, *event_shape)."""
        if context is None or context.shape[0] != rows:
            got = "none" if context is None else str(tuple(context.shape))
            raise ValueError(f"ConditionalDiagonalNormal expected a context of {rows} rows; got {got}")
        if context.is_floating_point():
            own = (one.dtype for one in self.network.parameters() if one.is_floating_point())
            context = context.to(next(own, self.origin.dtype))
        parameters: Tensor = self.network(context)
        dimensions = torch.Size(self.event_shape).numel()
        if parameters.shape != (rows, 2 * dimensions):
            raise ValueError(
                f"ConditionalDiagonalNormal expected shape ({rows}, {2 * dimensions}) of its network; "
                f"got {tuple(parameters.shape)}"
            )
        # Of fewer bits under autocast, which concerns the network: the density is exact.
        parameters = parameters.to(self.origin.dtype)
        mean, log_deviation = parameters.reshape(rows, 2, *self.event_shape).unbind(1)
        return mean, log_deviation
