"""Recipes by name, with arguments as plain numbers for a file."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flows import Flow, recipes

Number = int | float
Arguments = dict[str, Number | list[int]]

# Not recorded: shape and levels have their own fields; contexts and laws are for code only.
_NOT_RECORDED = frozenset({"event_shape", "levels", "context", "law"})


class RecipeError(ValueError):
    """The recipe is unknown, or does not take these arguments or this shape."""


@dataclass(frozen=True)
class Recipe:
    """A recipe of `flows.recipes` for the command line.

    Attributes:
        depth: name of the argument that --depth sets.
        small: arguments that a CPU can fit in minutes, instead of the papers' defaults. They were chosen on
            the validation split of the digits.
        multiscale: True if it takes `scales`, the number of times that images are halved.
    """

    build: Callable[..., Flow]
    depth: str
    small: Arguments
    multiscale: bool


_ALPHA = 0.01  # of the logit; images take fewer bits than with the papers' 0.05
RECIPES = {
    "nice": Recipe(recipes.nice, "couplings", {"hidden": [128] * 2, "alpha": _ALPHA}, multiscale=False),
    "realnvp": Recipe(
        recipes.real_nvp, "blocks", {"hidden": 16, "blocks": 1, "alpha": _ALPHA}, multiscale=True
    ),
    "glow": Recipe(recipes.glow, "steps", {"hidden": 32, "steps": 6, "alpha": _ALPHA}, multiscale=True),
    "spline": Recipe(
        recipes.neural_spline,
        "steps",
        {"hidden": 40, "steps": 6, "bins": 4, "alpha": _ALPHA},
        multiscale=True,
    ),
    "maf": Recipe(recipes.maf, "layers", {"hidden": [128] * 2, "alpha": _ALPHA}, multiscale=False),
}


def recipe_name(name: str) -> str:
    """Validate a key of `RECIPES`.

    Raises:
        RecipeError: there is no such recipe.
    """
    if name not in RECIPES:
        raise RecipeError(f"there is no recipe {name!r}; there are: {', '.join(RECIPES)}")
    return name


def arguments(
    name: str, *, hidden: int | None = None, depth: int | None = None, scales: int | None = None
) -> Arguments:
    """Collect all arguments of a recipe except shape and levels: given values, else the small ones.

    A record of all arguments builds the same flow in later versions with other defaults.

    Raises:
        RecipeError: there is no such recipe, or it has no scales.
    """
    recipe = RECIPES[recipe_name(name)]
    chosen = _defaults(recipe.build) | recipe.small
    if hidden is not None:
        widths = chosen["hidden"]
        chosen["hidden"] = [hidden] * len(widths) if isinstance(widths, list) else hidden
    if depth is not None:
        chosen[recipe.depth] = depth
    if scales is not None:
        if not recipe.multiscale:
            raise RecipeError(f"{name} takes images as vectors and has no scales")
        chosen["scales"] = scales
    return chosen


def build(name: str, event_shape: tuple[int, ...], levels: int | None, chosen: Mapping[str, Any]) -> Flow:
    """Build a flow with random weights.

    Args:
        event_shape: (D,) or (C, H, W).
        levels: number of integer levels, or None for real numbers.
        chosen: result of `arguments`.

    Raises:
        RecipeError: there is no such recipe, or it does not take these arguments or this shape.
    """
    recipe = RECIPES[recipe_name(name)]
    if unknown := sorted(set(chosen) - set(_defaults(recipe.build))):
        raise RecipeError(f"the recipe {name} takes no {', '.join(unknown)}")
    try:
        return recipe.build(event_shape, levels=levels, **chosen)
    except (ValueError, TypeError) as error:
        raise RecipeError(f"the recipe {name} cannot be built: {error}") from error


def halvings(name: str, chosen: Mapping[str, Any]) -> int:
    """Count how often a recipe halves the height and width of its images."""
    if not RECIPES[name].multiscale:
        return 0
    # RealNVP leaves its last scale as it is.
    return int(chosen["scales"]) - (name == "realnvp")


def _defaults(function: Callable[..., Flow]) -> Arguments:
    given = inspect.signature(function).parameters.values()
    return {
        p.name: list(p.default) if isinstance(p.default, tuple) else p.default
        for p in given
        if p.name not in _NOT_RECORDED
    }
