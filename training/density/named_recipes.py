"""The recipes that can be fitted by name, and their arguments as plain numbers that a file can hold."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flows import Flow, recipes

Number = int | float
Arguments = dict[str, Number | list[int]]

# Not written down: the event's shape and the levels have their own places, contexts and other laws are for
# code and not for the command line, and `recompute` trades time for memory and changes no density.
_NOT_KEPT = frozenset({"event_shape", "levels", "context", "recompute", "law"})


class RecipeError(ValueError):
    """There is no such recipe, or it does not take these arguments or this shape."""


@dataclass(frozen=True)
class Recipe:
    """A recipe of `flows.recipes`, and what the options of the command line are called in it.

    Attributes:
        build: the recipe.
        depth: the argument that --depth sets.
        small: what a CPU can fit in minutes, in the place of the defaults, which are the papers'. They
            were chosen by the validation part of the digits.
        multiscale: whether it takes `scales`, how often images are halved.
    """

    build: Callable[..., Flow]
    depth: str
    small: Arguments
    multiscale: bool


_ALPHA = 0.01  # of the logit; with it images take fewer bits than with the papers' 0.05
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
    """The key of `RECIPES` that is meant.

    Raises:
        RecipeError: none is.
    """
    if name not in RECIPES:
        raise RecipeError(f"there is no recipe {name!r}; there are: {', '.join(RECIPES)}")
    return name


def arguments(
    name: str, *, hidden: int | None = None, depth: int | None = None, scales: int | None = None
) -> Arguments:
    """All arguments of a recipe but the event's shape and the levels: what is given, else small ones.

    With all of them written down a later version of the library, whose defaults may differ, still builds
    the same flow.

    Args:
        name: key of `RECIPES`.
        hidden: width of all hidden layers.
        depth: see `Recipe.depth`.
        scales: of a multi-scale recipe.

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
    """A flow with fresh weights.

    Args:
        name: key of `RECIPES`.
        event_shape: (D,) or (C, H, W).
        levels: of integers, or None.
        chosen: of `arguments`.

    Raises:
        RecipeError: there is no such recipe, or it does not take these arguments or this shape.
    """
    recipe = RECIPES[recipe_name(name)]
    if strange := sorted(set(chosen) - set(_defaults(recipe.build))):
        raise RecipeError(f"the recipe {name} takes no {', '.join(strange)}")
    try:
        return recipe.build(event_shape, levels=levels, **chosen)
    except (ValueError, TypeError) as error:
        raise RecipeError(f"the recipe {name} cannot be built: {error}") from error


def halvings(name: str, chosen: Mapping[str, Any]) -> int:
    """How often a recipe halves the height and the width of its images."""
    if not RECIPES[name].multiscale:
        return 0
    # RealNVP leaves its last scale as it is.
    return int(chosen["scales"]) - (name == "realnvp")


def _defaults(function: Callable[..., Flow]) -> Arguments:
    given = inspect.signature(function).parameters.values()
    return {
        p.name: list(p.default) if isinstance(p.default, tuple) else p.default
        for p in given
        if p.name not in _NOT_KEPT
    }
