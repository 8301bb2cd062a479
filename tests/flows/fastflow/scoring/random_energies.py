"""Random energies for tests of everything that makes scores and maps of them."""

from typing import Final

import torch

from flows.fastflow.model.fused import Energies

SIZE: Final = (64, 48)  # of the images
FACTORS: Final = (0.0, 1e-12, 1e12, 1e30, 1e34)  # of energies, from none to nearly too large for float32


def random_energies(scales: int = 3, images: int = 1, seed: int = 0, factor: float = 1.0) -> Energies:
    """Make energies of the flow and of the Gaussian, per scale (N, H_i, W_i), a few of them far out."""
    generator = torch.Generator().manual_seed(seed)

    def some() -> list[torch.Tensor]:
        sides = [max(2, 16 >> i) for i in range(scales)]
        return [factor * torch.randn((images, s, s - 1), generator=generator).exp() for s in sides]

    of_each = torch.zeros(images, scales)
    return Energies(some(), some(), torch.zeros(images, 2), of_each, of_each)
