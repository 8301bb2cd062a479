"""A density: a transform and the base distribution of its latents."""

import math
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from flows.actnorm import no_initialisation
from flows.distributions import Distribution
from flows.transform import Transform


class Flow(nn.Module):
    """The density log p(x) = log p_Z(f(x)) + log |det df/dx| (Rezende and Mohamed 2015, eq. 5-7).

    Where a context is given, it is handed to the transform and to the base: p(x | context).

    >>> _ = torch.manual_seed(0)
    >>> from flows import ChannelAffine, StandardNormal
    >>> flow = Flow(ChannelAffine(2), StandardNormal((2,)))
    >>> x, log_prob = flow.sample_and_log_prob(3)
    >>> torch.allclose(flow.log_prob(x), log_prob)
    True

    Args:
        transform: data to latents.
        base: distribution of the latents.
    """

    def __init__(self, transform: Transform, base: Distribution) -> None:
        super().__init__()
        self.transform = transform
        self.base = base

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """`log_prob`, as wrappers of modules (data parallelism, say) call it."""
        return self.log_prob(x, context)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Exact log-density of x in nats, (N,).

        Of a flow that begins with `UniformDequantization` that of x + u, with u drawn anew for each call. The
        mean over draws is a lower bound of the integers' log-probability; a single one may be above it.

        Args:
            x: (N, *event_shape).
            context: (N, ...), a row for each of x, where the flow depends on one.

        Raises:
            ValueError: x has another shape, or the context other rows.
        """
        _require_rows(context, x.shape[0] if x.ndim else 1)  # a single number is refused by the transform
        z, log_det = self.transform.forward(x, context)
        return self.base.log_prob(z, context) + log_det

    def bits_per_dim(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """-log2 p(x) / D, (N,): bits that a code for x takes per dimension. For integers see
        `UniformDequantization`.
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
        """Draw n samples, (n, *event_shape). It sets no `ActNorm`, unless compiled: samples are no data.

        Args:
            n: how many.
            context: (n, ...), a row for each sample, where the flow depends on one.
            temperature: multiplies the latents' distance from their centre; below 1, likelier samples.
            generator: of the random numbers.

        Raises:
            ValueError: the context has other than n rows.
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
        """Draw n samples and give their log-densities, (n,), in one pass.

        The inverse's log-determinant is that of dx/dz, so it is subtracted. The densities are the flow's,
        whatever the temperature the samples were drawn at. A flow that begins with `UniformDequantization`
        gives integers, and with each the density of the real number that it was rounded down from.
        """
        z, x, log_det = self._draw(n, context, temperature, generator)
        return x, self.base.log_prob(z, context) - log_det

    def _draw(
        self, n: int, context: Tensor | None, temperature: float, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, samples, and the log-determinant of the way from one to the other."""
        _require_rows(context, n)
        # Of an `Inverse` the way to samples is a forward pass, which in training mode would set an `ActNorm`.
        # torch.compile cannot trace what forbids it.
        with nullcontext() if torch.compiler.is_compiling() else no_initialisation():
            z = self.base.sample(n, context=context, temperature=temperature, generator=generator)
            return z, *self.transform.inverse(z, context)


def _require_rows(context: Tensor | None, rows: int) -> None:
    """Raise ValueError unless a context has so many rows: what has no use for one passes it over unseen."""
    if context is not None and context.shape[:1] != (rows,):
        raise ValueError(f"Flow expected a context of {rows} rows; got {tuple(context.shape)}")
