"""Many categories out of one: its bundle under other names, with weights that differ a little."""

from pathlib import Path

import torch
from safetensors.torch import load

from flows.fastflow import bundle, models_folder
from flows.fastflow.bundle import FLOW, MANIFEST
from flows.fastflow.models_folder import BACKBONES

# Small enough that golden pictures score as before, to within what a bundle is allowed.
_NOISE = 1e-6


def copies(original: Path, models: Path, count: int) -> list[str]:
    """Publish and activate `count` categories in a models folder, or take those that are there; their names.

    Args:
        original: a bundle, whose models folder holds its backbone's weights.
        models: another models folder.
        count: how many.
    """
    manifest = bundle.verify(original)
    names = [f"line-{number:03}" for number in range(count)]
    kept = models / BACKBONES
    kept.mkdir(parents=True, exist_ok=True)
    for file in (original.parent.parent / BACKBONES).iterdir():
        if not (kept / file.name).exists():
            (kept / file.name).symlink_to(file.resolve())
    tensors = load((original / FLOW).read_bytes())
    files = {name: (original / name).read_bytes() for name in manifest.files if name not in (FLOW, MANIFEST)}
    for number, name in enumerate(names):
        if models_folder.active_version(models, name) == manifest.version:
            continue
        generator = torch.Generator().manual_seed(number)
        other = {
            key: value * (1 + _NOISE * torch.randn(value.shape, generator=generator))
            if value.is_floating_point()
            else value
            for key, value in tensors.items()
        }
        models_folder.publish(models, manifest.model_copy(update={"category": name}), other, files)
        models_folder.activate(models, name, manifest.version)
    return names


def flow_bytes(models: Path, names: list[str]) -> int:
    """Of the flow files of the active versions of some categories."""
    return sum((models_folder.resolve(models, name) / FLOW).stat().st_size for name in names)
