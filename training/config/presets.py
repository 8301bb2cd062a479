"""Presets: base settings of a run that its own fields override."""

from collections.abc import Mapping
from typing import Any

from flows.fastflow.backbones.presets import DEFAULT_BACKBONE, PresetError, get_preset


def apply_preset(data: Mapping[str, Any], name: str | None = None) -> dict[str, Any]:
    """Fill the preset into the settings of a run.

    Args:
        data: the run's YAML, perhaps with `preset: NAME`; `backbone.blocks` is another name for
            `backbone.out_indices`.
        name: a preset that replaces the YAML's.

    Returns:
        The settings without `preset` and `blocks`; fields of `data` override those of the preset.

    Raises:
        PresetError: there is no such preset; `blocks` and `out_indices` are both given; or another backbone
            is named without either.
    """
    data = dict(data)
    chosen = name if name is not None else data.get("preset")
    data.pop("preset", None)
    if chosen is not None and not isinstance(chosen, str):
        raise PresetError(f"preset must be a name; got {chosen!r}")
    base = {} if chosen is None else get_preset(chosen).settings()
    backbone = data.get("backbone")
    # A section that is no mapping stays: validation reports it.
    if isinstance(backbone, dict):
        data["backbone"] = _with_indices(backbone, base.get("backbone", {"name": DEFAULT_BACKBONE}))
    for section, fields in base.items():
        own = data.get(section, {})
        if isinstance(fields, dict):
            if isinstance(own, dict):
                data[section] = fields | own
        else:
            data.setdefault(section, fields)
    return data


def _with_indices(backbone: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    backbone = dict(backbone)
    if "blocks" in backbone:
        if "out_indices" in backbone:
            raise PresetError("backbone.blocks is another name for backbone.out_indices; give one of them")
        backbone["out_indices"] = backbone.pop("blocks")
    name = backbone.get("name", base["name"])
    if name != base["name"] and "out_indices" not in backbone:
        raise PresetError(
            f"backbone.name is {name!r}: say which of its feature maps to use, with backbone.out_indices for "
            "stages (such as [1, 2, 3] for strides 4, 8, 16) or backbone.blocks for a transformer's blocks "
            "(such as [7]); or take a preset, see `flowgauge backbones list`"
        )
    return backbone
