"""Converted backbones are kept on disk, and what is damaged there is made anew."""

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flows.fastflow.backbones.features import FeatureExtractor
from flows.fastflow.backbones.recorded import record_backbone
from tests.app.support.full_disk import limit_file_size
from tests.flows.fastflow.untrained import weights

pytest.importorskip("openvino")

from flows.fastflow.engines.openvino import cache as openvino_cache
from flows.fastflow.engines.openvino import engine as openvino_engine
from flows.fastflow.engines.openvino.engine import OpenVinoEngine

SIZE = (64, 64)
IMAGES = torch.randint(0, 256, (1, *SIZE, 3), dtype=torch.uint8)


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    """A backbone that is compiled in an instant; its files are larger than what a full disk takes."""
    return FeatureExtractor(weights(), (1, 2))


def maps(extractor: FeatureExtractor, cache: Path) -> list[Tensor]:
    return OpenVinoEngine("float32", cache).backbone(extractor, SIZE)(IMAGES)


def are_equal(some: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def test_converted_backbone_is_not_converted_again(
    tmp_path: Path, extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = OpenVinoEngine("float32", tmp_path / "new")
    expected = engine.backbone(extractor, SIZE)(IMAGES)
    monkeypatch.setattr(openvino_engine, "convert", lambda *_: pytest.fail("converted again"))
    assert are_equal(maps(extractor, tmp_path / "new"), expected)


@pytest.mark.parametrize("suffix", [".xml", ".bin", ".sha256"])
@pytest.mark.parametrize("damage", ["a flipped bit", "half of it", "missing"])
def test_damaged_one_is_converted_again(
    tmp_path: Path, extractor: FeatureExtractor, suffix: str, damage: str
) -> None:
    expected = maps(extractor, tmp_path)
    [path] = tmp_path.glob(f"*{suffix}")
    good = path.read_bytes()
    if damage == "a flipped bit":
        place = len(good) // 2
        path.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
    elif damage == "half of it":
        path.write_bytes(good[: len(good) // 2])
    else:
        path.unlink()
    assert are_equal(maps(extractor, tmp_path), expected)
    assert len(list(tmp_path.iterdir())) == 3


def test_other_weights_stages_and_sizes_have_other_files(tmp_path: Path, extractor: FeatureExtractor) -> None:
    others = FeatureExtractor(weights(1), (1, 2)), FeatureExtractor(weights(), (2, 3))
    paths = {openvino_cache.cached_path(tmp_path, record_backbone(one), SIZE) for one in (extractor, *others)}
    paths.add(openvino_cache.cached_path(tmp_path, record_backbone(extractor), (64, 96)))
    assert len(paths) == 4


def test_other_version_replaces_converted_graph(
    tmp_path: Path, extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps(extractor, tmp_path)
    (tmp_path / "of-others.xml").touch()
    before = {path.name for path in tmp_path.iterdir()}
    monkeypatch.setattr("openvino.__version__", "2030.0")
    maps(extractor, tmp_path)
    after = {path.name for path in tmp_path.iterdir()}
    assert len(after) == len(before)
    assert before & after == {"of-others.xml"}


def test_where_nothing_can_be_written_it_is_computed_and_said(
    tmp_path: Path, extractor: FeatureExtractor, caplog: pytest.LogCaptureFixture
) -> None:
    expected = maps(extractor, tmp_path / "good")
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        with limit_file_size(10_000):
            on_a_full_disk = maps(extractor, tmp_path / "full")
        below_a_file = maps(extractor, tmp_path / "file" / "cache")
    assert [("cannot be written" in line) for line in caplog.messages] == [True, True]
    assert are_equal(on_a_full_disk, expected)
    assert are_equal(below_a_file, expected)
    assert not list((tmp_path / "full").iterdir())
