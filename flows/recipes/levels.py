"""The multi-scale skeleton of Glow and of the spline flow of images; shapes that RealNVP takes, too."""

from collections.abc import Callable

from flows.compose import Compose, Inverse
from flows.multiscale import FactorOut
from flows.recipes.events import expect_counts
from flows.reshape import Squeeze
from flows.transform import Transform


def squeezed_levels(
    channels: int,
    levels: int,
    steps: Callable[[int], list[Transform]],
    prior: Callable[[int], Transform],
    *,
    recompute: bool,
) -> list[Transform]:
    """Squeeze, steps, half of the channels finished, and so on; at the end everything is put back in shape.

    Args:
        channels: C of the input.
        levels: how many times to squeeze; all but the last one finish half of their channels.
        steps: makes the steps of a level, of its channels after squeezing.
        prior: makes the split prior of a level's channels.
        recompute: as of `Compose`, for every level's steps.
    """
    inside = 4 * channels
    made: list[Transform] = [Squeeze(channels), Compose(steps(inside), recompute=recompute)]
    if levels > 1:
        below = squeezed_levels(inside // 2, levels - 1, steps, prior, recompute=recompute)
        made += [prior(inside), FactorOut(inside, Compose(below))]
    return [*made, Inverse(Squeeze(channels))]


def expect_scales(shape: tuple[int, ...], scales: int, squeezes: int, recipe: str) -> None:
    """ValueError unless there is a scale, and height and width can be halved as often as is squeezed."""
    expect_counts(recipe, scales=scales)
    if any(size % 2**squeezes for size in shape[1:]):
        raise ValueError(
            f"{recipe} of {scales} scales expected a height and width that can be halved {squeezes} times; "
            f"got {shape}"
        )
