"""Coupling transforms: one part of the input decides how the other is transformed."""

from torch import Tensor, nn

from flows.clamp import SoftClamp
from flows.partition import Halves
from flows.transform import Transform


class AffineCoupling(Transform):
    """Affine coupling (Dinh et al. 2017, RealNVP, arXiv 1605.08803, eq. 4-8).

        z_a = x_a                                          the identity half
        z_b = x_b exp(s) + t,   (a, t) = m(x_a),   s = clamp(a)
        log det = sum of s

    The conditioner m is arbitrary and never inverted: the inverse sees the same x_a.

    Args:
        partition: divides the input into x_a and x_b.
        conditioner: maps x_a with `partition.conditioning` channels to 2 * `partition.transformed`
            channels, the raw log-scale first, then the shift.
        clamp: bounds the log-scale.
    """

    def __init__(self, partition: Halves, conditioner: nn.Module, clamp: SoftClamp) -> None:
        super().__init__()
        self.partition = partition
        self.conditioner = conditioner
        self.clamp = clamp

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x_a, x_b = self.partition.split(x)
        log_scale, shift = self._scale_and_shift(x_a)
        z_b = x_b * log_scale.exp() + shift
        return self.partition.join(x_a, z_b), log_scale.flatten(1).sum(1)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        z_a, z_b = self.partition.split(z)
        log_scale, shift = self._scale_and_shift(z_a)
        x_b = (z_b - shift) * (-log_scale).exp()
        return self.partition.join(z_a, x_b), -log_scale.flatten(1).sum(1)

    def _scale_and_shift(self, x_a: Tensor) -> tuple[Tensor, Tensor]:
        parameters: Tensor = self.conditioner(x_a)
        # Fewer channels would broadcast, and the log-determinant would count them once.
        if parameters.shape[1] != 2 * self.partition.transformed:
            raise ValueError(
                f"AffineCoupling expected {2 * self.partition.transformed} channels of its conditioner, a "
                f"log-scale and a shift for each it transforms; got {parameters.shape[1]}"
            )
        raw, shift = parameters.chunk(2, 1)
        return self.clamp(raw), shift
