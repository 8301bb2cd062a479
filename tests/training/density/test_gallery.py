"""Densities of the drawings: they integrate to one and match transformed points."""

from collections.abc import Sequence
from io import BytesIO

import pytest
import torch
from PIL import Image
from torch import Tensor

from flows import Transform, standard_normal_log_prob
from training.density.plane import fit_target
from training.density.targets import TARGETS

pytest.importorskip("matplotlib")
from training.density import gallery

LAYERS: list[Sequence[Transform]] = [gallery.planar_layers(10), gallery.radial_layers(10)]
VIEW = (-7.0, 7.0, -7.0, 7.0)


@torch.no_grad()
def density(layers: Sequence[Transform], points: Tensor, base: gallery.LogProb) -> Tensor:
    z, log_det = gallery.data_to_base(layers).forward(points)
    return base(z) + log_det


@pytest.mark.parametrize("layers", LAYERS, ids=["planar", "radial"])
@pytest.mark.parametrize("depth", gallery.DEPTHS)
@pytest.mark.parametrize("base", [standard_normal_log_prob, gallery.uniform_log_prob])
def test_every_density_drawn_integrates_to_one(
    layers: Sequence[Transform], depth: int, base: gallery.LogProb
) -> None:
    side = 100
    values = gallery.pixels(density(layers[:depth], gallery.grid(VIEW, side), base), side)
    assert values.shape == (side, side)
    assert values.sum().item() * (14 / side) ** 2 == pytest.approx(1, abs=0.01)


def test_fit_comes_nearer_to_its_target_and_is_drawn() -> None:
    target = TARGETS["banana"]
    before = fit_target("maf", target, steps=1, seed=0)
    advanced: list[int] = []
    after = fit_target("maf", target, steps=120, seed=0, advance=advanced.append)
    assert sum(advanced) == 120
    assert 0 < after.divergence < 0.5 * before.divergence
    data = gallery.learned_densities([before, after], "two fits", side=10, points=50)
    with Image.open(BytesIO(data)) as image:
        assert image.format == "PNG"
