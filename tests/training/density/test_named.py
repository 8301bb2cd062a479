"""Recipes by name: complete arguments, and one clear sentence for what cannot be."""

import inspect

import pytest

from training.density.named import RECIPES, RecipeError, arguments, build, halvings


@pytest.mark.parametrize("name", RECIPES)
def test_all_arguments_are_written_down(name: str) -> None:
    given = set(inspect.signature(RECIPES[name].build).parameters)
    assert set(arguments(name)) == given - {"event_shape", "levels", "context", "recompute", "law"}


@pytest.mark.parametrize("name", RECIPES)
def test_width_and_depth_are_what_was_asked_for(name: str) -> None:
    def size(**options: int) -> int:
        flow = build(name, (1, 8, 8), 17, arguments(name, **options))
        return sum(p.numel() for p in flow.parameters())

    least = size(hidden=4, depth=1)
    assert least < size(hidden=8, depth=1)
    assert least < size(hidden=4, depth=2)


@pytest.mark.parametrize(
    ("name", "scales", "times"), [("glow", 2, 2), ("spline", 1, 1), ("realnvp", 3, 2), ("realnvp", 1, 0)]
)
def test_pictures_that_can_be_halved_so_often_do(name: str, scales: int, times: int) -> None:
    chosen = arguments(name, scales=scales, hidden=4, depth=1)
    assert halvings(name, chosen) == times
    side = 2**times
    assert build(name, (1, side, side), 256, chosen).sample(1).shape == (1, 1, side, side)
    if times:
        with pytest.raises(RecipeError, match="cannot be built"):
            build(name, (1, side // 2, side // 2), 256, chosen)


def test_what_a_recipe_does_not_take_is_refused() -> None:
    with pytest.raises(RecipeError, match="nice takes pictures as vectors and has no scales"):
        arguments("nice", scales=2)
    with pytest.raises(RecipeError, match="the recipe nice takes no law"):
        build("nice", (4,), None, {"law": 1})
