"""Composition and inversion of transforms."""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from flows.recompute import InvertibleStep, run, run_and_recompute
from flows.transform import Transform


class Compose(Transform):
    """Composition f = f_K o ... o f_1 of transforms.

        log |det df/dx| = sum_k log |det df_k/dx_k|,   x_k: the input of step k

    >>> from flows import ChannelAffine, Permutation
    >>> z, log_det = Compose([Permutation([1, 0]), ChannelAffine(2)]).forward(torch.tensor([[1.0, 2.0]]))
    >>> z.tolist(), log_det.shape
    ([[2.0, 1.0]], torch.Size([1]))

    Args:
        transforms: at least one transform, in data-to-latent order.
        recompute: keep no activations for the backward pass, and compute the input of each step from its
            output by the inverse (Gomez et al. 2017, arXiv 1707.04585, section 3.2). Memory then does not
            grow with the number of steps; time grows by the inverse and one forward pass. Gradients are as
            exact as the inverses. Autocast and gradients of gradients raise RuntimeError. Not for steps that
            draw random numbers. No effect inside torch.func's transforms.

    Raises:
        ValueError: there is no transform, or one has no inverse.
    """

    def __init__(self, transforms: Iterable[Transform], *, recompute: bool = False) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(transforms)
        self.recompute = recompute
        if not self.transforms:
            raise ValueError("Compose expected at least one transform; got none")
        for module in self.transforms:
            if not callable(getattr(module, "inverse", None)):
                name = type(module).__name__
                raise ValueError(f"Compose expected transforms; got {name}, which has no inverse")  # noqa: TRY004

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._run([InvertibleStep(t.forward, t.inverse, t) for t in self._steps()], x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._run(
            [InvertibleStep(t.inverse, t.forward, t) for t in reversed(self._steps())], z, context
        )

    def _steps(self) -> list[Transform]:
        # torch.compile returns a module that is no Transform but has both methods.
        return [cast("Transform", module) for module in self.transforms]

    def _run(self, steps: list[InvertibleStep], x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.recompute and torch.is_grad_enabled() and not _inside_torch_func():
            return run_and_recompute(steps, x, context)
        return run(steps, x, context)


def _inside_torch_func() -> bool:
    # torch's own check; there is no public one.
    return torch._C._are_functorch_transforms_active()


class Inverse(Transform):
    """Transform with exchanged directions: its `forward` is the inner transform's `inverse`.

    For example, the `Inverse` of a masked autoregressive flow samples in one pass. Data do not initialise an
    `ActNorm` within it; see there.

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
