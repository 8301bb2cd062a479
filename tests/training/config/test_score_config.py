"""The Gaussian's share of the map, derived after the fit."""

import pytest
import torch

from flows.fastflow.config import FlowConfig, Geometry, ScoreRule
from flows.fastflow.manifest import Normalisation
from flows.fastflow.model.head import Head
from training.config.score_config import ScoreConfig

SIZE = (8, 8)
STRETCHED = Geometry()


def fitted(share: float, *, of_positions: bool = True) -> Head:
    """A head whose features have this share of their variance between positions."""
    generator = torch.Generator().manual_seed(0)
    places = torch.randn(6, *SIZE, generator=generator)
    places = (places - places.mean((1, 2), keepdim=True)) / places.std((1, 2), correction=0, keepdim=True)
    left = torch.randn(400, 6, *SIZE, generator=generator)
    maps = share**0.5 * places + (1 - share) ** 0.5 * left
    normalisation = Normalisation(mode="channel", pooling=1, pooled="all")
    head = Head((6,), normalisation, FlowConfig(steps=2), [SIZE] if of_positions else None)
    head.fit_statistics(lambda: [[maps]])
    return head


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 0.2), (0.3, 0.2), (0.5, 0.25), (0.7, 0.35), (0.99, 0.495)]
)
def test_map_share_is_half_of_the_position_share(share: float, expected: float) -> None:
    rule = ScoreConfig().rule(fitted(share), STRETCHED)
    assert rule.gaussian == pytest.approx(expected, abs=0.005)


def test_padded_geometry_uses_a_fixed_share() -> None:
    assert ScoreConfig().rule(fitted(0.9), Geometry(fit="pad")).gaussian == 0.25


def test_one_mean_for_all_positions_is_the_least() -> None:
    assert ScoreConfig().rule(fitted(0.9, of_positions=False), STRETCHED).gaussian == 0.2


@pytest.mark.parametrize("geometry", [STRETCHED, Geometry(fit="pad"), Geometry(fit="tile")])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_share_that_is_given_stays(share: float, geometry: Geometry) -> None:
    assert ScoreConfig(gaussian=share).rule(fitted(0.9), geometry).gaussian == share


def test_all_else_is_as_configured() -> None:
    config = ScoreConfig(
        top_fraction=0.2, energy_floor=0.1, enlarging="linear", sharpness=2.0, picture=0.3, gaussian=0.4
    )
    assert config.rule(fitted(0.9), STRETCHED) == ScoreRule(**config.model_dump())
