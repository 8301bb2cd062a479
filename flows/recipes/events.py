"""What the recipes do with the kinds of events they take."""

from collections.abc import Sequence

from flows.compose import Compose
from flows.dequantize import Logit, UniformDequantization
from flows.distributions import Distribution, StandardNormal
from flows.flow import Flow
from flows.transform import Transform


def expect_event(event_shape: Sequence[int], recipe: str) -> tuple[int, ...]:
    """The shape as a tuple; ValueError unless it is (D,) or (C, H, W)."""
    shape = tuple(event_shape)
    if len(shape) not in (1, 3) or min(shape) < 1:
        raise ValueError(f"{recipe} expected an event of shape (D,) or (C, H, W); got {shape}")
    return shape


def expect_counts(recipe: str, **counts: int) -> None:
    """ValueError unless there is one of each at least."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{recipe} expected {name} of at least 1; got {count}")


def expect_halves(channels: int, recipe: str) -> None:
    """ValueError unless there are two channels or elements at least, which couplings divide."""
    if channels < 2:
        raise ValueError(f"{recipe} expected at least 2 channels to divide; got {channels}")


def flow_of(
    steps: Sequence[Transform],
    event_shape: tuple[int, ...],
    levels: int | None,
    *,
    alpha: float = 0.05,
    recompute: bool = False,
    base: Distribution | None = None,
) -> Flow:
    """The flow of some steps over continuous events, or over integers brought to real numbers first."""
    transform: Transform = Compose(steps, recompute=recompute)
    if levels is not None:
        # The random noise of dequantisation stays out of what is recomputed.
        transform = Compose([UniformDequantization(levels), Logit(alpha), transform])
    return Flow(transform, StandardNormal(event_shape) if base is None else base)
