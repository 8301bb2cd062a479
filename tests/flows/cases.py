"""The one table of constructors: adding a transform to the library is adding one line to it."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from flows import AffineCoupling, ChannelAffine, Compose, ConvNet, Halves, Permutation, SoftClamp, Transform

Shape = tuple[int, ...]  # of one event: (D,) or (C, H, W)
Make = Callable[[Shape], Transform]


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    name: str
    make: Make
    min_channels: int = 1

    def __str__(self) -> str:
        return self.name


def conditioner(halves: Halves, event: Shape, kernel_size: int = 3) -> nn.Module:
    """A small network for either kind of event."""
    in_, out = halves.conditioning, 2 * halves.transformed
    if len(event) == 1:
        return nn.Sequential(nn.Linear(in_, 5), nn.Tanh(), nn.Linear(5, out))
    return ConvNet((in_, 5, out), kernel_size)


def coupling(event: Shape, *, swapped: bool = False, bound: float = 2.0, kernel_size: int = 3) -> Transform:
    """An affine coupling over channel halves."""
    halves = Halves(event[0], swapped=swapped)
    return AffineCoupling(halves, conditioner(halves, event, kernel_size), SoftClamp(bound))


def steps(event: Shape) -> Transform:
    """Two steps of a flow with every kind of layer."""
    return Compose(
        [
            Permutation.random(event[0]),
            coupling(event),
            ChannelAffine(event[0]),
            coupling(event, swapped=True, kernel_size=1),
            ChannelAffine(event[0]),
        ]
    )


CASES = [
    Case("permutation", lambda event: Permutation.random(event[0])),
    Case("permutation of one order", lambda event: Permutation([*range(1, event[0]), 0])),
    Case("channel affine", lambda event: ChannelAffine(event[0])),
    Case("affine coupling", coupling, min_channels=2),
    Case("affine coupling, swapped", lambda event: coupling(event, swapped=True), min_channels=2),
    Case("affine coupling, wide clamp", lambda event: coupling(event, bound=8.0), min_channels=2),
    Case("compose of one", lambda event: Compose([ChannelAffine(event[0])])),
    Case("compose of steps", steps, min_channels=2),
    Case("compose of composes", lambda event: Compose([steps(event), steps(event)]), min_channels=2),
]
