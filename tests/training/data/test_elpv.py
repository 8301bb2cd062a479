"""The solar cells of the package elpv-dataset, under the protocol, with their licence."""

from pathlib import Path

import pytest

from training.data import elpv, layout
from training.data.sample import DatasetError

LABELS = """\
images/cell0001.png  1.0                 mono
images/cell0002.png  0.3333333333333333  poly
images/cell0003.png  0.0                 mono
images/cell0004.png  0.0                 poly
images/cell0005.png  0.6666666666666666  poly
images/cell0006.png  0.0                 poly
images/cell0007.png  0.0                 poly
"""


def package(folder: Path, labels: str) -> Path:
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "labels.csv").write_text(labels)
    return folder


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return elpv.lay_out(tmp_path_factory.mktemp("elpv"))


def test_the_counts_are_those_of_the_protocol(laid_out: Path) -> None:
    root, category = laid_out.parent, laid_out.name
    samples = layout.test_samples(root, category)
    assert category == "solar_cell"
    assert len(layout.train_images(root, category)) == 1131
    assert [s.defect for s in samples] == [None] * 377 + ["defective"] * 715
    assert {s.mask for s in samples} == {None}


def test_second_call_changes_nothing(laid_out: Path) -> None:
    def state() -> list[tuple[Path, int]]:
        return [(path, path.stat().st_mtime_ns) for path in sorted(laid_out.rglob("*"))]

    before = state()
    assert elpv.lay_out(laid_out.parent) == laid_out
    assert state() == before
    assert [entry.name for entry in laid_out.parent.iterdir()] == ["solar_cell"]


def test_missing_package_tells_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elpv, "PACKAGE", "elpv_dataset_that_is_not_there")
    with pytest.raises(DatasetError, match="pip install elpv-dataset"):
        elpv.lay_out(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_grades_between_good_and_defective_are_left_out(tmp_path: Path) -> None:
    layout = elpv.split(package(tmp_path, LABELS))
    assert [f.name for f in layout["test/defective"]] == ["cell0001.png"]
    good = [f.name for f in (*layout["train/good"], *layout["test/good"])]
    assert sorted(good) == [f"cell000{i}.png" for i in (3, 4, 6, 7)]
    assert len(layout["test/good"]) == 1
