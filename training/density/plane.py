"""Fits to two-dimensional targets, with the divergence from the target."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from flows import Flow, recipes
from training.density.fit import FitPoint, FitSettings, fit
from training.density.named_recipes import RECIPES, RecipeError, arguments, build, recipe_name
from training.density.targets import TARGETS, Target

_TRAIN, _VALIDATION, _TEST = 20_000, 2_000, 10_000
_HIDDEN = 64
_DEEP = 32
_VECTORS_ONLY: dict[str, Callable[[], Flow]] = {
    "planar": lambda: recipes.planar(2, depth=_DEEP),
    "radial": lambda: recipes.radial(2, depth=_DEEP),
}


class TargetError(ValueError):
    """The target is unknown."""


@dataclass(frozen=True)
class FittedTarget:
    """A target and a flow fitted to its samples.

    Attributes:
        flow: the fitted flow, in evaluation mode, on the CPU.
        divergence: KL(target || flow) in nats, estimated on fresh samples.
    """

    target: Target
    flow: Flow
    divergence: float


def find_targets(names: str) -> list[Target]:
    """Find targets by names separated by commas, or all, or none; raises TargetError."""
    listed = {"all": list(TARGETS), "none": []}.get(names, [name.strip() for name in names.split(",")])
    for name in listed:
        if name not in TARGETS:
            raise TargetError(
                f"there is no target {name!r}; there are: {', '.join(TARGETS)}; and all of them: all, "
                "no fits: none"
            )
    return [TARGETS[name] for name in dict.fromkeys(listed)]


def plane_recipe(name: str) -> Callable[[], Flow]:
    """Find the constructor of a flow over (2,) by recipe name; raises RecipeError."""
    if name in _VECTORS_ONLY:
        return _VECTORS_ONLY[name]
    try:
        known = recipe_name(name)
    except RecipeError as error:
        names = ", ".join([*RECIPES, *_VECTORS_ONLY])
        raise RecipeError(f"there is no recipe {name!r}; there are: {names}") from error
    return lambda: build(known, (2,), None, arguments(known, hidden=_HIDDEN))


def fit_target(
    recipe: str, target: Target, *, steps: int, seed: int, advance: Callable[[int], None] = lambda _: None
) -> FittedTarget:
    """Fit a flow to samples of a target, and measure its divergence.

    Args:
        recipe: key of `RECIPES`, "planar" or "radial".
        seed: seed of samples, weights and fit.
        advance: called with the steps done since the last call.

    Raises:
        RecipeError: there is no such recipe.
    """
    make = plane_recipe(recipe)
    generator = torch.Generator().manual_seed(seed)
    train, validation, test = (target.sample(n, generator) for n in (_TRAIN, _VALIDATION, _TEST))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        flow = make()
    done = 0

    def on_point(point: FitPoint) -> None:
        nonlocal done
        advance(point.step - done)
        done = point.step

    settings = FitSettings(steps=steps, batch_size=512, learning_rate=2e-3, seed=seed)
    fit(flow, train, validation, settings, on_point=on_point)
    with torch.no_grad():
        divergence = (target.log_prob(test) - flow.log_prob(test)).double().mean().item()
    return FittedTarget(target, flow, divergence)
