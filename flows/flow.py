"""A density: a transform and the base distribution of its latents."""

import torch
from torch import Tensor, nn

from flows.distributions import StandardNormal
from flows.transform import Transform


class Flow(nn.Module):
    """The density log p(x) = log p_Z(f(x)) + log |det df/dx| (Rezende and Mohamed 2015, eq. 5-7).

    >>> _ = torch.manual_seed(0)
    >>> from flows import ChannelAffine
    >>> flow = Flow(ChannelAffine(2), StandardNormal((2,)))
    >>> x, log_prob = flow.sample_and_log_prob(3)
    >>> torch.allclose(flow.log_prob(x), log_prob)
    True

    Args:
        transform: data to latents.
        base: distribution of the latents.
    """

    def __init__(self, transform: Transform, base: StandardNormal) -> None:
        super().__init__()
        self.transform = transform
        self.base = base

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-density of x in nats, (N,)."""
        z, log_det = self.transform.forward(x)
        return self.base.log_prob(z) + log_det

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n samples, (n, *event_shape)."""
        x, _ = self.transform.inverse(self.base.sample(n, generator))
        return x

    def sample_and_log_prob(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw n samples and give their log-densities, (n,), in one pass.

        The inverse's log-determinant is that of dx/dz, so it is subtracted.
        """
        z = self.base.sample(n, generator)
        x, log_det = self.transform.inverse(z)
        return x, self.base.log_prob(z) - log_det
