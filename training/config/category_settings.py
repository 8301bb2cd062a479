"""The settings of one category: its own ones override the general ones."""

from collections.abc import Mapping
from typing import Any

from flows.fastflow.backbones.presets import DEFAULT_BACKBONE
from training.config.presets import apply_preset

_STAGES = ("out_indices", "blocks")


def settings_of_category(
    general: Mapping[str, Any], own: Mapping[str, Any], preset: str | None = None
) -> dict[str, Any]:
    """Merge the settings of one category.

    The category's own settings, and those of its own preset, override the general ones field by field.
    General stages and weights of one backbone do not apply to another backbone of the category.

    Args:
        general: the file's settings for all categories, perhaps with a preset.
        own: the file's settings for this category, perhaps with a preset.
        preset: preset of the command line, instead of both.

    Raises:
        PresetError: there is no such preset, or the category's settings do not fit its preset.
    """
    expanded = preset is None and own.get("preset") is not None
    over = apply_preset(own) if expanded else own
    below = _of_the_same_backbone(general, over, preset)
    if expanded:
        below.pop("preset", None)
    merged = _merged(below, over)
    fit = own.get("fit")
    # `epochs` overrides `steps`: general epochs would override the category's own steps.
    if isinstance(fit, dict) and "steps" in fit and isinstance(merged["fit"], dict):
        merged["fit"] = {**merged["fit"], "epochs": fit.get("epochs")}
    return merged


def _of_the_same_backbone(
    general: Mapping[str, Any], own: Mapping[str, Any], preset: str | None
) -> dict[str, Any]:
    """Drop general settings of `backbone` that do not fit the category's backbone."""
    kept = dict(general)
    theirs, mine = general.get("backbone"), own.get("backbone", {})
    # A section that is no mapping stays: validation reports it.
    if isinstance(theirs, dict) and isinstance(mine, dict):
        base = apply_preset({"preset": general.get("preset")}, preset)
        of_preset = str(base.get("backbone", {"name": DEFAULT_BACKBONE})["name"])
        name = str(theirs.get("name", of_preset))
        # A category may remove the general preset, and with it that preset's backbone.
        without = preset is None and "preset" in own and own["preset"] is None and "name" not in theirs
        named = str(mine.get("name", DEFAULT_BACKBONE if without else name))
        gone: set[str] = set()
        # A tag changes the weights, not the stages.
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
