"""The inference form of a head: the same energies as by its training form, for every shape of flow."""

from collections.abc import Sequence
from typing import Literal

import pytest
import torch
from torch import Tensor

from flows.fastflow.backbones.presets import PRESETS
from flows.fastflow.config import FlowConfig, Kernels
from flows.fastflow.manifest import Normalisation
from flows.fastflow.model.fused import FusedHead
from flows.fastflow.model.head import Head

CHANNELS = (6, 4, 5)


def maps(channels: Sequence[int] = CHANNELS, n: int = 3, seed: int = 0) -> list[Tensor]:
    """Raw features, each scale half the size of the one before, far from a common scale."""
    generator = torch.Generator().manual_seed(seed)
    sides = [max(2, 8 >> i) for i in range(len(channels))]
    return [
        50 + 20 * torch.randn((n, c, side, side - 1), generator=generator)
        for c, side in zip(channels, sides, strict=True)
    ]


def made(
    flow: FlowConfig,
    normalisation: Normalisation,
    channels: Sequence[int] = CHANNELS,
    std: float = 0.1,
    sizes: Sequence[tuple[int, int]] | None = None,
    cells: int | None = None,
) -> Head:
    torch.manual_seed(0)
    head = Head(channels, normalisation, flow, sizes, cells).eval()
    for parameter in head.flow.parameters():
        torch.nn.init.normal_(parameter, std=std)
    head.fit_statistics(lambda: [maps(channels, 8, seed) for seed in (1, 2)])
    return head.requires_grad_(False)


def with_cells(steps: int = 1) -> Head:
    sizes = [(x.shape[2], x.shape[3]) for x in maps()]
    return made(FlowConfig(steps=steps), NORMALISATIONS[0], sizes=sizes, cells=3)


NORMALISATIONS = (
    Normalisation(mode="channel", pooling=3),
    Normalisation(mode="channel", pooling=3, pooled="all"),
    Normalisation(mode="layer", pooling=1),
)


@pytest.mark.parametrize("normalisation", NORMALISATIONS, ids=lambda n: f"{n.mode}-{n.pooled}")
@pytest.mark.parametrize("permutation", ["halves", "index"])
@pytest.mark.parametrize("kernels", ["3-1", "3", "depthwise-5"])
@pytest.mark.parametrize("steps", [1, 3])
def test_energies_are_those_of_the_training_form(
    normalisation: Normalisation, permutation: Literal["halves", "index"], kernels: Kernels, steps: int
) -> None:
    head = made(FlowConfig(steps=steps, kernels=kernels, permutation=permutation, clamp=1.5), normalisation)
    raw = maps()
    features, latents = head(raw)
    found = FusedHead(head)(raw)
    for q, z in zip(found.flow, latents, strict=True):
        torch.testing.assert_close(q, z.square().mean(1) / 2, rtol=1e-5, atol=1e-5)
    for e, expected in zip(found.gaussian, head.gaussian(features), strict=True):
        assert torch.equal(e, expected)
    assert torch.equal(found.image, head.picture(features))
    seen = raw if normalisation.mode == "layer" else features
    for i, x in enumerate(seen):
        torch.testing.assert_close(found.mean[:, i], x.mean((1, 2, 3)), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.square[:, i], x.square().mean((1, 2, 3)), rtol=1e-5, atol=1e-6)


def test_energy_of_cells_is_the_last_of_the_image() -> None:
    head, raw = with_cells(), maps()
    assert head.cells is not None
    features = head.normaliser(raw)
    expected = torch.cat([head.picture(features), head.cells(features[1])[:, None]], 1)
    assert torch.equal(FusedHead(head)(raw).image, expected)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_an_inference_form(name: str) -> None:
    settings = PRESETS[name].settings()
    flow = FlowConfig(**settings.get("flow", {}))
    normalisation = Normalisation(**{"mode": "channel", "pooling": 3} | settings.get("normalisation", {}))
    head = made(flow, normalisation, (7, 6), std=0.03)
    raw = maps((7, 6))
    _, latents = head(raw)
    for q, z in zip(FusedHead(head)(raw).flow, latents, strict=True):
        torch.testing.assert_close(q, z.square().mean(1) / 2, rtol=1e-5, atol=1e-5)


def test_the_head_is_left_as_it_was() -> None:
    head = made(FlowConfig(steps=2), NORMALISATIONS[0])
    before = {name: value.clone() for name, value in head.state_dict().items()}
    FusedHead(head).to(torch.bfloat16)
    changed = {"normaliser", "picture", "cells"}  # are the head's own
    for name, value in head.state_dict().items():
        if name.split(".")[0] not in changed:
            assert torch.equal(value, before[name]), name
