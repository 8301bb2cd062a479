"""Recipes by name: complete arguments, and clear errors."""

import inspect

import pytest

from training.density.named_recipes import RECIPES, RecipeError, arguments, build


@pytest.mark.parametrize("name", RECIPES)
def test_all_arguments_are_written_down(name: str) -> None:
    given = set(inspect.signature(RECIPES[name].build).parameters)
    assert set(arguments(name)) == given - {"event_shape", "levels", "context", "law"}


@pytest.mark.parametrize("name", RECIPES)
def test_width_and_depth_follow_the_options(name: str) -> None:
    def size(**options: int) -> int:
        flow = build(name, (1, 8, 8), 17, arguments(name, **options))
        return sum(p.numel() for p in flow.parameters())

    least = size(hidden=4, depth=1)
    assert least < size(hidden=8, depth=1)
    assert least < size(hidden=4, depth=2)


def test_unknown_argument_of_a_recipe_is_refused() -> None:
    with pytest.raises(RecipeError, match="nice takes images as vectors and has no scales"):
        arguments("nice", scales=2)
    with pytest.raises(RecipeError, match="the recipe nice takes no law"):
        build("nice", (4,), None, {"law": 1})
