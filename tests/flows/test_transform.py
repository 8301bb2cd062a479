"""What every constructor refuses, and integers, which are moved or refused."""

from collections.abc import Callable

import pytest
import torch

from flows import (
    ActNorm,
    ChannelAffine,
    InvertibleConv1x1,
    MaskedAutoregressive,
    Planar,
    Radial,
    Scaling,
    Squeeze,
    Transform,
)
from tests.flows.cases import CASES, Case

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


@pytest.mark.parametrize("way", ["forward", "inverse"])
@pytest.mark.parametrize("event", [(2,), (3, 2, 2), (1, 4, 4)])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_integers_are_refused_in_words_or_give_what_floating_numbers_give(
    case: Case, event: tuple[int, ...], way: str
) -> None:
    """Some layers gave results of the integers' dtype, cut to integers."""
    if not case.takes(event):
        return
    torch.manual_seed(0)
    transform = case.make(event).eval()
    x = torch.randint(-3, 4, (5, *(event if way == "forward" else case.latent(event))))
    apply = getattr(transform, way)
    try:
        found = apply(x)
    except ValueError as error:
        assert "expected floating numbers; got int64" in str(error)  # noqa: PT017
        return
    for one, other in zip(found, apply(x.float()), strict=True):
        torch.testing.assert_close(one.float(), other)
    assert torch.equal(found[0].flatten().sort().values, x.flatten().sort().values)  # only moved
