"""Composition of transforms, and their other direction."""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from flows.recompute import Step, run, run_and_recompute
from flows.transform import Transform


class Compose(Transform):
    """f = f_K o ... o f_1, applied left to right in `forward` and right to left in `inverse`.

    The log-determinants add (chain rule): log |det df/dx| = sum_k log |det df_k/dx_k|, where x_k is what
    reaches step k.

    >>> from flows import ChannelAffine, Permutation
    >>> z, log_det = Compose([Permutation([1, 0]), ChannelAffine(2)]).forward(torch.tensor([[1.0, 2.0]]))
    >>> z.tolist(), log_det.shape
    ([[2.0, 1.0]], torch.Size([1]))

    Args:
        transforms: at least one transform, in the order of the data-to-latent direction.
        recompute: keep no activations for the backward pass: each step's input is computed from its output
            by its inverse when the gradient comes to it (Gomez et al. 2017, The Reversible Residual Network,
            arXiv 1707.04585, section 3.2). Memory stops growing with the number of steps, and time grows by
            the inverse and one more forward pass. Gradients are autograd's, as exactly as the steps invert.
            Refused under autocast and for gradients of gradients; not for steps that draw random numbers.
            Inside torch.func's transforms it makes no difference.

    Raises:
        ValueError: no transform is given, or something that has no inverse.
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
        return self._run([Step(t.forward, t.inverse, t) for t in self._steps()], x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._run([Step(t.inverse, t.forward, t) for t in reversed(self._steps())], z, context)

    def _steps(self) -> list[Transform]:
        # What torch.compile returns is no Transform, and does what one does.
        return [cast("Transform", module) for module in self.transforms]

    def _run(self, steps: list[Step], x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.recompute and torch.is_grad_enabled() and not _inside_torch_func():
            return run_and_recompute(steps, x, context)
        return run(steps, x, context)


def _inside_torch_func() -> bool:
    # torch's own check of the same name; there is no public one.
    return torch._C._are_functorch_transforms_active()


class Inverse(Transform):
    """The same map the other way round: its forward is the inner transform's inverse.

    A planar flow, say, maps easily in one direction and by a search in the other; this chooses which one
    density estimation takes. An `ActNorm` in it is not set by data: see there.

    >>> from flows import Planar
    >>> flow = Planar(2)
    >>> x = torch.randn(5, 2)
    >>> torch.equal(Inverse(flow).forward(x)[0], flow.inverse(x)[0])
    True

    Args:
        transform: the transform to turn round.
    """

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform.inverse(x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform.forward(z, context)
