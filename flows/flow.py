"""Flow: a density made of a transform and a base distribution of its latents."""

import math
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from flows.actnorm import no_initialisation
from flows.distributions import Distribution
from flows.transform import Transform


class Flow(nn.Module):
    """Density of data whose latents z = f(x) have a simple distribution.

        log p(x) = log p_Z(f(x)) + log |det df/dx|

    Rezende and Mohamed 2015, arXiv 1505.05770, eq. 5-7. With a context, transform and base both see it:
    p(x | context).

    >>> _ = torch.manual_seed(0)
    >>> from flows import ChannelAffine, StandardNormal
    >>> flow = Flow(ChannelAffine(2), StandardNormal((2,)))
    >>> x, log_prob = flow.sample_and_log_prob(3)
    >>> torch.allclose(flow.log_prob(x), log_prob)
    True

    Args:
        transform: maps data to latents.
        base: distribution of the latents.
    """

    def __init__(self, transform: Transform, base: Distribution) -> None:
        super().__init__()
        self.transform = transform
        self.base = base

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return `log_prob`, for wrappers of modules such as DistributedDataParallel."""
        return self.log_prob(x, context)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the exact log-density of x in nats, (N,).

        A flow that begins with `UniformDequantization` returns the density of x + u, with u drawn anew for
        each call. The mean over draws is a lower bound of the integers' log-probability; a single draw may
        exceed it.

        Args:
            x: (N, *event_shape).
            context: (N, ...), one row per row of x, for a conditional flow.

        Raises:
            ValueError: x has a wrong shape, or the context a wrong number of rows.
        """
        _require_rows(context, x.shape[0] if x.ndim else 1)  # the transform refuses a scalar
        z, log_det = self.transform.forward(x, context)
        return self.base.log_prob(z, context) + log_det

    def bits_per_dim(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return -log2 p(x) / D, (N,): the bits per dimension of an ideal code for x.

        For integers see `UniformDequantization`.
        """
        return -self.log_prob(x, context) / (x.shape[1:].numel() * math.log(2))

    def sample(
        self,
        n: int,
        *,
        context: Tensor | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw n samples, (n, *event_shape), without initialising any `ActNorm` (unless compiled).

        Args:
            n: number of samples.
            context: (n, ...), one row per sample, for a conditional flow.
            temperature: factor of the latents' distance from their centre; below 1, likelier samples.
            generator: source of the random numbers.

        Raises:
            ValueError: the context does not have n rows.
        """
        return self._draw(n, context, temperature, generator)[1]

    def sample_and_log_prob(
        self,
        n: int,
        *,
        context: Tensor | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draw n samples and return them with their log-densities, (n,), in one pass.

        The densities are those of the flow at temperature 1, whatever the temperature of the samples. A flow
        that begins with `UniformDequantization` returns integers, each with the density of the real number
        that it was rounded down from.
        """
        z, x, log_det = self._draw(n, context, temperature, generator)
        return x, self.base.log_prob(z, context) - log_det

    def _draw(
        self, n: int, context: Tensor | None, temperature: float, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draw latents and samples; return both and the log-determinant of the inverse."""
        _require_rows(context, n)
        # Sampling through an `Inverse` is a forward pass, and would initialise an `ActNorm` in training mode.
        # torch.compile cannot trace the context manager.
        with nullcontext() if torch.compiler.is_compiling() else no_initialisation():
            z = self.base.sample(n, context=context, temperature=temperature, generator=generator)
            return z, *self.transform.inverse(z, context)


def _require_rows(context: Tensor | None, rows: int) -> None:
    """Raise ValueError unless a given context has so many rows."""
    if context is not None and context.shape[:1] != (rows,):
        raise ValueError(f"Flow expected a context of {rows} rows; got {tuple(context.shape)}")
