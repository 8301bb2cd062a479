"""Pixels by OpenVINO are those of numpy, for any rule and any number of scales and images."""

from typing import get_args

import numpy as np
import pytest
import torch

from flows.fastflow.config import ScoreRule, Upsampling
from flows.fastflow.engines.engine import pick_engine
from flows.fastflow.model.fused import Energies
from flows.fastflow.scoring.cpu_scoring import PixelPlanes, pixel_planes
from tests.flows.fastflow.scoring.random_energies import FACTORS, SIZE, random_energies

pytest.importorskip("openvino")

from flows.fastflow.engines.openvino import engine as openvino_engine

pytestmark = pytest.mark.threads(2)


def by_openvino(energies: Energies, rule: ScoreRule) -> list[PixelPlanes]:
    """Whatever the engine's precision: pixels are not rounded."""
    found = []
    for precision in ("float32", "openvino-bfloat16"):
        engine = pick_engine(precision, torch.device("cpu"), "openvino")
        found.append(list(engine.pixels(rule, SIZE)(energies)))
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a.product, b.product)
        np.testing.assert_array_equal(a.score_map, b.score_map)
    return found[0]


def expect_as_numpy(energies: Energies, rule: ScoreRule) -> None:
    found, expected = by_openvino(energies, rule), list(pixel_planes(energies, rule, SIZE))
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.product.dtype == a.score_map.dtype == np.float32
        np.testing.assert_allclose(a.product, b.product, rtol=1e-5)
        np.testing.assert_allclose(a.score_map, b.score_map, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("scales", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("gaussian", [0.0, 0.35, 1.0])
def test_any_number_of_scales(scales: int, gaussian: float) -> None:
    expect_as_numpy(random_energies(scales), ScoreRule(gaussian=gaussian))


@pytest.mark.parametrize("sharpness", [0.5, 2.0, 8.0])
def test_any_way_to_enlarge_and_any_sharpness(sharpness: float) -> None:
    for enlarging in get_args(Upsampling):
        expect_as_numpy(random_energies(), ScoreRule(enlarging=enlarging, sharpness=sharpness))


@pytest.mark.parametrize("images", [1, 2, 3, 8, 13])
def test_any_number_of_images_each_by_itself(images: int) -> None:
    expect_as_numpy(random_energies(images=images), ScoreRule(energy_floor=0.1))


@pytest.mark.parametrize("factor", FACTORS)
def test_however_small_or_large(factor: float) -> None:
    expect_as_numpy(random_energies(factor=factor), ScoreRule())


def test_infinite_energy_stays_local_without_nan() -> None:
    energies = random_energies()
    for scale in (*energies.flow, *energies.gaussian):
        scale[0, 0, 0] = torch.inf
    [found] = by_openvino(energies, ScoreRule())
    [expected] = pixel_planes(energies, ScoreRule(), SIZE)
    assert np.isfinite(found.score_map).all()
    assert found.score_map[0, 0] > 1e35
    np.testing.assert_allclose(found.score_map, expected.score_map, rtol=1e-5, atol=2e-6)


def test_rules_and_sizes_are_told_apart() -> None:
    engine = pick_engine("float32", torch.device("cpu"), "openvino")
    energies = random_energies()
    for rule in (ScoreRule(), ScoreRule(gaussian=0.6), ScoreRule(energy_floor=0.5)):
        for size in (SIZE, (32, 32)):
            [found] = engine.pixels(rule, size)(energies)
            [expected] = pixel_planes(energies, rule, size)
            np.testing.assert_allclose(found.score_map, expected.score_map, rtol=1e-5, atol=2e-6)
            np.testing.assert_allclose(found.product, expected.product, rtol=1e-5)


def test_images_too_large_for_a_whole_batch_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_engine, "_PORTION_PIXELS", 2 * SIZE[0] * SIZE[1])
    expect_as_numpy(random_energies(images=7), ScoreRule())
    monkeypatch.setattr(openvino_engine, "_PORTION_PIXELS", 1)
    expect_as_numpy(random_energies(images=3), ScoreRule())
