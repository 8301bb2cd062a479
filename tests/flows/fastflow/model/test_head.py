"""A category's head: its parts in the right order, fitted to what they will see."""

from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from flows.fastflow.config import FlowConfig
from flows.fastflow.manifest import Normalisation
from flows.fastflow.model.gaussian import ImageGaussian, PositionGaussian
from flows.fastflow.model.head import Head, keeps_float32
from flows.fastflow.model.normaliser import FeatureNormaliser

CHANNELS = (6, 4, 5)


def maps(n: int = 12, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        50 + 20 * torch.randn((n, c, *size), generator=generator)
        for c, size in zip(CHANNELS, [(8, 6), (4, 3), (2, 2)], strict=True)
    ]


def batches(size: int = 5) -> Iterator[Sequence[Tensor]]:
    whole = maps()
    return ([x[i : i + size] for x in whole] for i in range(0, len(whole[0]), size))


def made(channels: Sequence[int] = CHANNELS, pooling: int = 3) -> Head:
    torch.manual_seed(0)
    head = Head(channels, Normalisation(mode="channel", pooling=pooling), FlowConfig(steps=2)).eval()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return head.requires_grad_(False)


def test_every_part_is_fitted_to_what_it_will_see() -> None:
    """The Gaussians to normalised features: each part alone, fitted in its order, is the same to the bit."""
    head = made()
    head.fit_statistics(batches)
    normaliser = FeatureNormaliser(CHANNELS, "channel", 3)
    normaliser.fit(batches())
    position, picture = PositionGaussian(CHANNELS), ImageGaussian(CHANNELS)
    position.fit(normaliser(x) for x in batches())
    picture.fit(normaliser(x) for x in batches())
    for part, alone in ((head.normaliser, normaliser), (head.gaussian, position), (head.picture, picture)):
        for (name, a), (_, b) in zip(part.named_buffers(), alone.named_buffers(), strict=True):
            assert torch.equal(a, b), name


@pytest.mark.parametrize(
    ("sides", "size", "exact"),
    [
        ((65, 64), (256, 256), True),
        ((64, 65), (256, 256), True),
        ((64, 64), (256, 256), False),
        # Strides round up: of 30 x 61 the map at a quarter has 8 x 16 positions.
        ((8, 16), (30, 61), False),
        ((15, 31), (30, 61), True),
        ((1, 1), (3, 2), False),
    ],
)
def test_maps_of_a_quarter_rounded_up_are_reduced(
    sides: tuple[int, int], size: tuple[int, int], exact: bool
) -> None:
    assert keeps_float32(sides, size) == exact
