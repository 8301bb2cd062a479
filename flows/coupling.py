"""Coupling transform: one part of the input determines how the other is transformed."""

from torch import Tensor, nn

from flows.laws import Law
from flows.partition import Partition
from flows.transform import Transform, require_floating


class Coupling(Transform):
    """Coupling (Dinh et al. 2015, NICE, arXiv 1410.8516, section 3.2).

        z_a = x_a                                   the identity part
        z_b = g(x_b; m(x_a))                        g: the law, increasing in each element of x_b
        log |det df/dx| = sum of log dg/dx_b        over the elements of x_b

    The conditioner m is arbitrary and never inverted, because the inverse sees the same x_a. One coupling
    leaves x_a unchanged, so let the partitions alternate, or mix the channels in between.

    >>> import torch
    >>> from flows import MLP, Affine, Halves
    >>> halves = Halves(4)
    >>> coupling = Coupling(halves, MLP(2, (16,), 2 * halves.transformed), Affine())
    >>> x = torch.randn(3, 4)
    >>> z, _ = coupling.forward(x)
    >>> torch.equal(z[:, :2], x[:, :2])
    True

    Args:
        partition: divides the input into x_a and x_b.
        conditioner: maps x_a, of `partition.conditioning` channels, to `law.per_element *
            partition.transformed` channels at every position: the first parameter of all transformed
            channels, then the second of all, and so on. Called with x_a, and with the context if there is
            one.
        law: additive, affine, or a spline.
    """

    def __init__(self, partition: Partition, conditioner: nn.Module, law: Law) -> None:
        super().__init__()
        self.partition = partition
        self.conditioner = conditioner
        self.law = law

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x_a, x_b = self.partition.split(x)
        require_floating(x, "Coupling")
        z_b, log_derivatives = self.law.forward(x_b, self._law_parameters(x_a, context))
        return self.partition.join(x_a, z_b), self.partition.total(log_derivatives)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z_a, z_b = self.partition.split(z)
        require_floating(z, "Coupling")
        x_b, log_derivatives = self.law.inverse(z_b, self._law_parameters(z_a, context))
        return self.partition.join(z_a, x_b), self.partition.total(log_derivatives)

    def _law_parameters(self, x_a: Tensor, context: Tensor | None) -> Tensor:
        """Compute the parameters of the law, (N, per_element, transformed, ...)."""
        parameters: Tensor = self.conditioner(x_a) if context is None else self.conditioner(x_a, context)
        per_element, transformed = self.law.per_element, self.partition.transformed
        # Fewer channels or positions would broadcast, and the log-determinant would miss elements.
        if parameters.shape[1] != per_element * transformed:
            raise ValueError(
                f"Coupling expected {per_element * transformed} channels of its conditioner, {per_element} "
                f"for each it transforms; got {parameters.shape[1]}"
            )
        if parameters.shape[2:] != x_a.shape[2:]:
            positions = (f", {size}" for size in x_a.shape[2:])
            raise ValueError(
                f"Coupling expected shape (N, {parameters.shape[1]}{''.join(positions)}) of its conditioner, "
                f"with parameters for every position; got {tuple(parameters.shape)}"
            )
        # Autocast rounds the conditioner only; the law and its derivative stay exact.
        parameters = parameters.to(x_a.dtype)
        return parameters.reshape(x_a.shape[0], per_element, transformed, *parameters.shape[2:])
