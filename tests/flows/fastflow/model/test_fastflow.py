"""The flows of FastFlow: counts, structure, likelihood, and the way back."""

import itertools
from collections.abc import Sequence
from typing import cast

import numpy as np
import pytest
import torch

from flows import ChannelAffine, Compose, Coupling, Halves, Permutation
from flows.fastflow.config import FlowConfig
from flows.fastflow.model.fastflow import FastFlow
from tests.flows.contract import jacobian

RESNET18, WIDE_RESNET50 = (64, 128, 256), (256, 512, 1024)


def config(**values: object) -> FlowConfig:
    published = {"steps": 8, "hidden_ratio": 1.0, "hidden_limit": None, "permutation": "index"}
    return FlowConfig.model_validate({**published, **values})


def randomised(channels: Sequence[int], settings: FlowConfig, seed: int = 0, spread: float = 0.2) -> FastFlow:
    torch.manual_seed(seed)
    model = FastFlow(channels, settings, seed=seed).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, spread)
    return model


def couplings(model: FastFlow, scale: int = 0) -> list[Coupling]:
    transforms = cast(Compose, model.scales[scale]).transforms
    return [t for t in transforms if isinstance(t, Coupling)]


@pytest.mark.parametrize("channels", [2, 5, 40])
def test_halves_take_turns(channels: int) -> None:
    model = FastFlow([channels], config(steps=4, permutation="halves"))
    transforms = list(cast(Compose, model.scales[0]).transforms)
    first, rest = transforms[0], transforms[1:]
    assert isinstance(first, Permutation)
    assert [type(t) for t in rest] == [Coupling, ChannelAffine] * 4
    large, small = (channels + 1) // 2, channels // 2
    changed = []
    for step, layer in enumerate(couplings(model)):
        assert cast(Halves, layer.partition).swapped == (step % 2 == 1)
        assert layer.partition.transformed == (large if step % 2 else small)
        marks = torch.arange(float(channels))[None]
        changed.append(set(layer.partition.split(marks)[1][0].tolist()))
    for one, two in itertools.pairwise(changed):
        assert one | two == set(range(channels))
        assert not one & two


def test_seed_fixes_the_permutations_per_scale() -> None:
    def orders(seed: int) -> list[list[int]]:
        model = FastFlow([40, 40], config(steps=1), seed=seed)
        return [m.index.tolist() for m in model.modules() if isinstance(m, Permutation)]

    assert orders(0) == orders(0)
    assert orders(0) != orders(1)
    assert orders(0)[0] != orders(0)[1]


@pytest.mark.parametrize("permutation", ["index", "halves"])
def test_nll_is_what_an_independent_computation_gives(permutation: str) -> None:
    """-log p(x) / D with the Jacobian's determinant found by elimination, averaged over the batch."""
    model = randomised((3, 2), config(steps=3, permutation=permutation))
    features = [torch.randn(2, 3, 2, 2, dtype=torch.float64), torch.randn(2, 2, 1, 3, dtype=torch.float64)]
    with torch.no_grad():
        latents, _ = model(features)
    for i, (x, z) in enumerate(zip(features, latents, strict=True)):
        scale, size = cast(Compose, model.scales[i]), x[0].numel()
        total = 0.0
        for row, matrix in enumerate(jacobian(scale.forward, x).numpy()):
            energy = 0.5 * float((z[row] ** 2).sum()) + 0.5 * size * np.log(2 * np.pi)
            total += energy - float(np.linalg.slogdet(matrix)[1])
        assert model.nll(features)[i].item() == pytest.approx(total / 2 / size, rel=1e-10)


@pytest.mark.parametrize("permutation", ["index", "halves"])
@pytest.mark.parametrize("kernels", ["3", "3-1", "depthwise-5"])
@pytest.mark.parametrize("channels", [(5, 4), (3,), (8, 7, 2)])
def test_it_comes_back_with_random_parameters(
    channels: Sequence[int], kernels: str, permutation: str
) -> None:
    model = randomised(channels, config(kernels=kernels, permutation=permutation))
    features = [torch.randn(2, c, 4 + i, 3, dtype=torch.float64) for i, c in enumerate(channels)]
    latents, log_dets = model(features)
    back, undone = model.inverse(latents)
    for x, y, there, again in zip(features, back, log_dets, undone, strict=True):
        torch.testing.assert_close(y, x, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(there, -again, rtol=1e-8, atol=1e-8)
