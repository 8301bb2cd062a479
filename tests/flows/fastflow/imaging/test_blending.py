"""Energies of overlapping tiles: a constant stays, agreement stays, difference makes no step."""

import pytest
import torch
from torch import Tensor

from flows.fastflow.config import Geometry
from flows.fastflow.imaging.blending import TileBlender
from flows.fastflow.imaging.geometry import TileLayout, compute_layout

CPU = torch.device("cpu")


def layout(height: int = 150, width: int = 210, overlap: float = 0.25, margin: int = 0) -> TileLayout:
    geometry = Geometry(fit="tile", overlap=overlap, margin=margin)
    return compute_layout(geometry, (height, width), (64, 64), (8, 16))


def blended(where: TileLayout, tiles: Tensor, chunk: int = 1000) -> Tensor:
    blend = TileBlender(where, tiles.shape[1], CPU)
    for start in range(0, len(tiles), chunk):
        blend.add(tiles[start : start + chunk])
    return blend.result()


@pytest.mark.parametrize("overlap", [0.125, 0.25, 0.6, 0.75])
def test_constant_stays_the_same_to_the_last_bit(overlap: float) -> None:
    where = layout(overlap=overlap)
    for value in (0.1, 1e-30, 12345.678):
        found = blended(where, torch.full((len(where), 2, 64, 64), value))
        assert found.shape == (1, 2, 150, 210)
        assert (found == torch.tensor(value)).all()


@pytest.mark.parametrize("margin", [0, 8])
def test_where_tiles_agree_the_image_is_theirs(margin: int) -> None:
    where = layout(margin=margin)
    torch.manual_seed(0)
    canvas = torch.rand(3, *where.canvas)
    tiles = torch.stack([canvas[:, t : t + 64, left : left + 64] for t, left in where.corners()])
    rows, columns = where.inside
    torch.testing.assert_close(blended(where, tiles)[0], canvas[:, rows, columns], rtol=1e-6, atol=1e-6)


def test_where_tiles_differ_there_is_no_step() -> None:
    """Tiles that are 0 and 1 in turn: the steepest slope is that of a Hann window over the overlap."""
    where = layout(64, 500)
    n = len(where)
    tiles = (torch.arange(n) % 2).float()[:, None, None, None].expand(n, 1, 64, 64)
    found = blended(where, tiles)[0, 0, 0]
    overlap = 64 - (where.lefts[1] - where.lefts[0])
    assert found.min() == 0
    assert found.max() == 1
    assert found.diff().abs().max() <= torch.pi / 2 / overlap * 1.01
    window = (torch.pi / 2 * (torch.arange(overlap) + 0.5) / overlap).sin().square()
    torch.testing.assert_close(found[where.lefts[1] - where.inside[1].start :][:overlap], window)


def test_chunks_make_no_difference() -> None:
    where = layout()
    torch.manual_seed(2)
    tiles = torch.rand(len(where), 2, 64, 64)
    assert torch.equal(blended(where, tiles), blended(where, tiles, chunk=3))
