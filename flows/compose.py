"""Composition and inversion of transforms."""

from collections.abc import Iterable
from typing import cast

from torch import Tensor, nn

from flows.transform import Transform


class Compose(Transform):
    """Composition f = f_K o ... o f_1 of transforms.

        log |det df/dx| = sum_k log |det df_k/dx_k|,   x_k: the input of step k

    >>> import torch
    >>> from flows import ChannelAffine, Permutation
    >>> z, log_det = Compose([Permutation([1, 0]), ChannelAffine(2)]).forward(torch.tensor([[1.0, 2.0]]))
    >>> z.tolist(), log_det.shape
    ([[2.0, 1.0]], torch.Size([1]))

    Args:
        transforms: at least one transform, in data-to-latent order.

    Raises:
        ValueError: there is no transform, or one has no inverse.
    """

    def __init__(self, transforms: Iterable[Transform]) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(transforms)
        if not self.transforms:
            raise ValueError("Compose expected at least one transform; got none")
        for module in self.transforms:
            if not callable(getattr(module, "inverse", None)):
                name = type(module).__name__
                raise ValueError(f"Compose expected transforms; got {name}, which has no inverse")  # noqa: TRY004

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(x.shape[0])
        for step in self._steps():
            x, log_det = step.forward(x, context)
            total = total + log_det
        return x, total

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = z.new_zeros(z.shape[0])
        for step in reversed(self._steps()):
            z, log_det = step.inverse(z, context)
            total = total + log_det
        return z, total

    def _steps(self) -> list[Transform]:
        # torch.compile returns a module that is no Transform but has both methods.
        return [cast("Transform", module) for module in self.transforms]


class Inverse(Transform):
    """Transform with exchanged directions: its `forward` is the inner transform's `inverse`.

    For example, the `Inverse` of a masked autoregressive flow samples in one pass. Data do not initialise an
    `ActNorm` within it; see there.

    >>> import torch
    >>> from flows import Planar
    >>> flow = Planar(2)
    >>> x = torch.randn(5, 2)
    >>> torch.equal(Inverse(flow).forward(x)[0], flow.inverse(x)[0])
    True

    Args:
        transform: the transform to invert.
    """

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform.inverse(x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform.forward(z, context)
