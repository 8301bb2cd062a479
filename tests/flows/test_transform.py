"""What every constructor refuses."""

from collections.abc import Callable

import pytest

from flows import (
    ActNorm,
    ChannelAffine,
    Flatten,
    InvertibleConv1x1,
    MaskedAutoregressive,
    Planar,
    Radial,
    Scaling,
    Squeeze,
    Transform,
)

SIZED: list[Callable[[int], Transform]] = [
    ActNorm,
    ChannelAffine,
    InvertibleConv1x1,
    MaskedAutoregressive,
    Planar,
    Radial,
    Scaling,
    Squeeze,
]


@pytest.mark.parametrize("channels", [0, -2])
@pytest.mark.parametrize("make", SIZED)
def test_no_channels_are_refused(make: Callable[[int], Transform], channels: int) -> None:
    with pytest.raises(ValueError, match=f"expected at least 1 channel or feature; got {channels}"):
        make(channels)


def test_an_empty_event_is_refused() -> None:
    with pytest.raises(ValueError, match="Flatten expected at least 1 channel or feature; got 0"):
        Flatten((2, 0, 3))
