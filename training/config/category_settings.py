"""The settings of one category: its own over those that hold for all."""

from collections.abc import Mapping
from typing import Any

from flows.fastflow.backbones.presets import DEFAULT_BACKBONE
from training.config.presets import apply_preset

_STAGES = ("out_indices", "blocks")


def settings_of_category(
    general: Mapping[str, Any], own: Mapping[str, Any], preset: str | None = None
) -> dict[str, Any]:
    """A run's settings as they are for one category.

    Its own win field by field, and so does all that its own preset says. What `general` says of one backbone
    (stages, weights) does not hold for another that the category names.

    Args:
        general: what the file says for all categories, perhaps with a preset.
        own: what it says for this one, perhaps with another.
        preset: of the command line, in the place of both.

    Raises:
        PresetError: there is no such preset, or what a category says with its own does not fit it.
    """
    expanded = preset is None and own.get("preset") is not None
    over = apply_preset(own) if expanded else own
    below = _of_the_same_backbone(general, over, preset)
    if expanded:
        below.pop("preset", None)
    merged = _merged(below, over)
    fit = own.get("fit")
    # `epochs` goes before `steps`: those that hold for all would win over the category's own steps.
    if isinstance(fit, dict) and "steps" in fit and isinstance(merged["fit"], dict):
        merged["fit"] = {**merged["fit"], "epochs": fit.get("epochs")}
    return merged


def _of_the_same_backbone(
    general: Mapping[str, Any], own: Mapping[str, Any], preset: str | None
) -> dict[str, Any]:
    """The general settings without those of `backbone` that would be wrong for the category's."""
    kept = dict(general)
    theirs, mine = general.get("backbone"), own.get("backbone", {})
    # A section that is no mapping stays, for the validation to complain about.
    if isinstance(theirs, dict) and isinstance(mine, dict):
        base = apply_preset({"preset": general.get("preset")}, preset)
        of_preset = str(base.get("backbone", {"name": DEFAULT_BACKBONE})["name"])
        name = str(theirs.get("name", of_preset))
        # A category may take the preset for all away, and with it that preset's backbone.
        without = preset is None and "preset" in own and own["preset"] is None and "name" not in theirs
        named = str(mine.get("name", DEFAULT_BACKBONE if without else name))
        gone: set[str] = set()
        # A tag names other weights of the same stages.
        if named.partition(".")[0] != name.partition(".")[0] or any(key in mine for key in _STAGES):
            gone.update(_STAGES)
        if named != name:
            gone.add("weights")
        kept["backbone"] = {key: value for key, value in theirs.items() if key not in gone}
    return kept


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in over.items():
        below = base.get(name)
        if isinstance(below, dict) and isinstance(value, dict):
            merged[name] = _merged(below, value)
        else:
            merged[name] = value
    return merged
