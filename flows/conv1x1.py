"""Invertible 1x1 convolution: a learned mixture of the channels."""

from typing import Any

import torch
from torch import Tensor, nn

from flows.permutation import require_permutation
from flows.transform import (
    Transform,
    channels_log_det,
    require_channels,
    require_floating,
    require_positive,
    without_autocast,
)


class InvertibleConv1x1(Transform):
    """Invertible 1x1 convolution z = W x at every position (Glow).

        W = P L (U + diag(sign exp(s)))
        log |det df/dx| = H W sum(s)

    Kingma and Dhariwal 2018, arXiv 1807.03039, section 3.2, eq. 10-11. The permutation P and the signs are
    fixed; L has ones on its diagonal, U zeros. So the determinant costs C additions, and W is never singular.
    W starts as a random rotation. The inverse solves two triangular systems, which is more exact than
    multiplying by an inverted W. On vectors this is the layer often called LU layer.

    >>> _ = torch.manual_seed(0)
    >>> layer = InvertibleConv1x1(3)
    >>> x = torch.randn(2, 3, 4, 4)
    >>> torch.allclose(layer.forward(x)[0].square().sum(), x.square().sum())  # a rotation keeps lengths
    True

    Args:
        channels: C of images (N, C, H, W), D of vectors (N, D).

    Raises:
        ValueError: `load_state_dict` loads a P that is no permutation.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        require_positive(channels, "InvertibleConv1x1")
        # The signs make it uniform over all rotations and reflections (Mezzadri 2007, math-ph/0609050).
        q, r = torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float64, device="cpu"))
        p, lower, upper = torch.linalg.lu(q * r.diagonal().sign())
        # Computed on the CPU in double precision, then moved to the default device and dtype.
        device, dtype = torch.get_default_device(), torch.get_default_dtype()
        self.lower = nn.Parameter(lower.tril(-1).to(device, dtype))
        self.upper = nn.Parameter(upper.triu(1).to(device, dtype))
        self.log_diagonal = nn.Parameter(upper.diagonal().abs().log().to(device, dtype))
        self.register_buffer("sign", upper.diagonal().sign().to(device, dtype))
        self.register_buffer("order", p.argmax(1).to(device))
        self.sign: Tensor
        self.order: Tensor
        self.register_load_state_dict_post_hook(_check_loaded)  # type: ignore[no-untyped-call]

    @classmethod
    def reversing(cls, channels: int) -> "InvertibleConv1x1":
        """Build a layer that starts by reversing the channels."""
        layer = cls(channels)
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
        nn.init.ones_(layer.sign)
        layer.order.copy_(torch.arange(channels - 1, -1, -1))
        return layer

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_channels(x, len(self.sign), "InvertibleConv1x1")
        require_floating(x, "InvertibleConv1x1")
        # No autocast and no TF32 convolution of cuDNN: the inverse must undo what was computed.
        with without_autocast(x.device.type):
            lower, upper = self._factors()
            # L U with ones on the diagonal of L. Few operations: their overhead exceeds the product's cost.
            weight = torch.addmm(upper, lower, upper).index_select(0, self.order).to(x.dtype)  # (C, C)
            z = x @ weight.T if x.ndim == 2 else (weight @ x.flatten(2)).view_as(x)
        return z, self._log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_channels(z, len(self.sign), "InvertibleConv1x1")
        require_floating(z, "InvertibleConv1x1")
        lower, upper = self._factors()
        columns = z.movedim(1, 0).flatten(1).to(lower.dtype)[self.order.argsort()]  # (C, N H W)
        columns = torch.linalg.solve_triangular(lower, columns, upper=False, unitriangular=True)
        columns = torch.linalg.solve_triangular(upper, columns, upper=True)
        x = columns.reshape(len(self.sign), z.shape[0], *z.shape[2:]).movedim(0, 1).to(z.dtype)
        return x, -self._log_det(z)

    def _factors(self) -> tuple[Tensor, Tensor]:
        """Return L without its diagonal and U + diag(...), both (C, C).

        In single precision at least, because half has no triangular solver.
        """
        dtype = torch.promote_types(self.lower.dtype, torch.float32)
        diagonal = self.sign.to(dtype) * self.log_diagonal.to(dtype).exp()
        return self.lower.to(dtype).tril(-1), self.upper.to(dtype).triu(1) + diagonal.diag()

    def _log_det(self, x: Tensor) -> Tensor:
        return channels_log_det(self.log_diagonal, x)


def _check_loaded(module: InvertibleConv1x1, _: Any) -> None:
    require_permutation(module.order, "InvertibleConv1x1")
