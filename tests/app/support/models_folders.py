"""Helpers for tests that change a models folder."""

import math
from collections.abc import Awaitable
from pathlib import Path

import pytest
from safetensors.torch import load, save

from app.errors.problems import Problem
from app.registry.loaded_models import LoadedModels
from flows.fastflow.bundle import bundle
from flows.fastflow.detector import GOLDEN_TOLERANCE, Detector
from flows.fastflow.imaging.decoder import decode_image
from tests.app.support.bundles import copy_version
from tests.flows.fastflow.manifests import edit, rehash


async def raised_problem(call: Awaitable[object], name: str) -> str:
    with pytest.raises(Problem) as caught:
        await call
    assert caught.value.name == name, caught.value.detail
    assert "/tmp" not in caught.value.detail  # noqa: S108
    return caught.value.detail


async def serving_version(loaded_models: LoadedModels) -> str:
    return (await loaded_models.get("tiny")).manifest.version


def damage_bundle(folder: Path) -> None:
    content = bytearray((folder / bundle.FLOW).read_bytes())
    content[-1] ^= 1
    (folder / bundle.FLOW).write_bytes(content)


def publish_half_size(models: Path, version: str) -> None:
    """Publish the tiny model with a 32 x 32 input and every second position."""
    folder = copy_version(models, version)
    tensors = load((folder / bundle.FLOW).read_bytes())
    means = {
        name: x[:, ::2, ::2].contiguous()
        for name, x in tensors.items()
        if name.startswith(("gaussian.mean", "cells.mean"))
    }
    (folder / bundle.FLOW).write_bytes(save(tensors | means))
    rehash(folder)
    # By name: safetensors gives tensors in an order of chance.
    sizes = [means[name].shape[1:] for name in sorted(means) if name.startswith("gaussian")]
    change_manifest(folder, input_size=[32, 32], gaussian={"sizes": sizes, "cells": 8})


def change_manifest(folder: Path, **fields: object) -> None:
    """Change fields of a bundle's manifest, and update the golden scores."""
    edit(folder, lambda d: d.update(fields))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(GOLDEN_TOLERANCE, "float32", math.inf)
        detector = Detector.load(folder, device="cpu")
    images = [decode_image((folder / golden.file).read_bytes()) for golden in detector.manifest.golden]
    scores = [prediction.score for image in images for prediction in detector.predict([image])]
    edit(folder, lambda d: [g.update(score=s) for g, s in zip(d["golden"], scores, strict=True)])
