"""Shared parts of the recipes: argument checks, multi-scale skeleton, finished flow."""

from collections.abc import Callable, Sequence

from flows.compose import Compose, Inverse
from flows.dequantize import Logit, UniformDequantization
from flows.distributions import Distribution, StandardNormal
from flows.flow import Flow
from flows.multiscale import FactorOut
from flows.reshape import Squeeze
from flows.transform import Transform


def validate_event_shape(event_shape: Sequence[int], recipe: str) -> tuple[int, ...]:
    """Return the shape as a tuple, or raise ValueError unless it is (D,) or (C, H, W)."""
    shape = tuple(event_shape)
    if len(shape) not in (1, 3) or min(shape) < 1:
        raise ValueError(f"{recipe} expected an event of shape (D,) or (C, H, W); got {shape}")
    return shape


def require_counts(recipe: str, **counts: int) -> None:
    """Raise ValueError unless every count is at least 1."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{recipe} expected {name} of at least 1; got {count}")


def require_two_channels(channels: int, recipe: str) -> None:
    """Raise ValueError unless there are two channels, or elements, for a coupling to divide."""
    if channels < 2:
        raise ValueError(f"{recipe} expected at least 2 channels to divide; got {channels}")


def require_scales(shape: tuple[int, ...], scales: int, squeezes: int, recipe: str) -> None:
    """Raise ValueError unless there is a scale and height and width allow so many squeezes."""
    require_counts(recipe, scales=scales)
    if any(size % 2**squeezes for size in shape[1:]):
        raise ValueError(
            f"{recipe} of {scales} scales expected a height and width that can be halved {squeezes} times; "
            f"got {shape}"
        )


def multiscale_steps(
    channels: int,
    scales: int,
    steps: Callable[[int], list[Transform]],
    prior: Callable[[int], Transform],
) -> list[Transform]:
    """Build the multi-scale skeleton of Glow; the latents have the shape of the input.

    Each scale squeezes and runs its steps. All scales but the last then finish half of their channels.

    Args:
        channels: C of the input.
        scales: number of scales, each with one squeeze.
        steps: builds the steps of a scale from its number of channels after squeezing.
        prior: builds the split prior of a scale, likewise.
    """
    inside = 4 * channels
    made: list[Transform] = [Squeeze(channels), Compose(steps(inside))]
    if scales > 1:
        below = multiscale_steps(inside // 2, scales - 1, steps, prior)
        made += [prior(inside), FactorOut(inside, Compose(below))]
    return [*made, Inverse(Squeeze(channels))]


def build_flow(
    steps: Sequence[Transform],
    event_shape: tuple[int, ...],
    levels: int | None,
    *,
    alpha: float = 0.05,
    base: Distribution | None = None,
) -> Flow:
    """Build a flow from its steps; with `levels`, dequantisation and a logit come first.

    Args:
        steps: transforms in the data-to-latent direction.
        event_shape: shape of the latents.
        levels: L of integer data 0 ... L - 1, or None for real-valued data.
        alpha: see `Logit`.
        base: distribution of the latents, by default standard normal.
    """
    if levels is not None:
        steps = [UniformDequantization(levels), Logit(alpha), *steps]
    return Flow(Compose(steps), StandardNormal(event_shape) if base is None else base)
