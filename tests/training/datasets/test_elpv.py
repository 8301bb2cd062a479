"""The solar cells of the package elpv-dataset, under the protocol, with their licence."""

import filecmp
import shutil
from pathlib import Path

import pytest

from training.datasets import elpv, layout
from training.datasets.sample import DatasetError

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
    """A package folder with these grades."""
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


def test_no_cell_is_in_two_places(laid_out: Path) -> None:
    files = [path.name for path in laid_out.rglob("*.png")]
    assert len(files) == len(set(files)) == 1131 + 377 + 715


def test_the_pictures_are_copied_as_they_are(laid_out: Path) -> None:
    originals = elpv.package_folder() / "data" / "images"
    for name in ("train/good", "test/good", "test/defective"):
        files = [f.name for f in (laid_out / name).iterdir()]
        same, different, missing = filecmp.cmpfiles(laid_out / name, originals, files, False)
        assert (len(same), different, missing) == (len(files), [], [])


def test_the_licence_and_the_authors_lie_beside_them(laid_out: Path) -> None:
    assert "CC-BY-NC-SA-4.0" in (layout.licence(laid_out.parent, laid_out.name) or "")
    readme = (laid_out / "README.txt").read_text()
    assert "Buerhop-Lutz" in readme
    assert "Deitsch" in readme
    assert "elpv-dataset 1." in readme
    assert "Attribution-NonCommercial-ShareAlike 4.0" in (laid_out / "LICENSE.md").read_text()


def test_a_second_call_changes_nothing(laid_out: Path) -> None:
    def state() -> list[tuple[Path, int]]:
        return [(path, path.stat().st_mtime_ns) for path in sorted(laid_out.rglob("*"))]

    before = state()
    assert elpv.lay_out(laid_out.parent) == laid_out
    assert state() == before
    assert [entry.name for entry in laid_out.parent.iterdir()] == ["solar_cell"]


def test_a_folder_with_other_pictures_is_refused(laid_out: Path, tmp_path: Path) -> None:
    shutil.copytree(laid_out, tmp_path / "solar_cell")
    next((tmp_path / "solar_cell" / "test" / "good").iterdir()).unlink()
    with pytest.raises(DatasetError, match=r"test/good exists and holds 376 pictures"):
        elpv.lay_out(tmp_path)


def test_notes_of_an_operating_system_are_no_other_pictures(laid_out: Path, tmp_path: Path) -> None:
    shutil.copytree(laid_out, tmp_path / "solar_cell")
    for name in (".DS_Store", "Thumbs.db", "._cell0001.png"):
        (tmp_path / "solar_cell" / "test" / "good" / name).touch()
    assert elpv.lay_out(tmp_path) == tmp_path / "solar_cell"


def test_an_interrupted_layout_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(source: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfile", interrupt)
    with pytest.raises(KeyboardInterrupt):
        elpv.lay_out(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_the_way_to_get_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("images/a.png 1.0\n", "line 1: expected a path, a probability and a kind"),
        (LABELS + "images/b.png much mono\n", "line 8: expected"),
        ("", "lists 0 good and 0 defective cells"),
    ],
)
def test_grades_of_another_form_are_refused(tmp_path: Path, labels: str, said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        elpv.split(package(tmp_path, labels))


def test_a_package_without_grades_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"has no .*labels\.csv"):
        elpv.split(tmp_path)
