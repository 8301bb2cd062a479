"""Folders for the command line are read by the trainer itself, and its check marks images."""

import json
import os
from pathlib import Path

import pytest

from app.errors.problems import Problem
from app.products.folders import make_folder, record_check
from app.products.products import Products
from app.products.rows import ImageFilter, file_name
from app.schemas.products import ImageFinding, ImageLabel
from flows.fastflow.calibration.images_per_part import number_parts
from tests.app.products.conftest import MakeImage
from tests.conftest import picture, png
from training.data import layout
from training.data.check.data_check import check_data


@pytest.fixture
def filled(products: Products, make_image: MakeImage) -> Products:
    """The product "cap" with 12 good images, of which two show one part, and two defects."""
    for i in range(12):
        part = "P/1" if i < 2 else None
        products.images.add("cap", make_image(png(picture(i)), name=f"good {i}.png", part_id=part))
    products.images.add("cap", make_image(png(picture(90, defect=True)), label="defect", kind="scratch"))
    products.images.add("cap", make_image(png(picture(91, defect=True)), label="defect"))
    return products


def tree(folder: Path) -> dict[str, int]:
    """Files by relative path, with their inode."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_ino for path in files}


def test_folder_is_read_by_the_trainer(filled: Products, tmp_path: Path) -> None:
    make_folder(filled, "cap", tmp_path)
    train = layout.train_images(tmp_path, "cap")
    assert len(train) == 12
    assert len(set(number_parts([path.name for path in train], tmp_path / "cap"))) == 11
    tested = layout.test_samples(tmp_path, "cap")
    assert sorted(sample.defect or "" for sample in tested) == ["defect", "scratch"]
    stored = {path.stat().st_ino for path in filled.images.files.folder.rglob("*.png")}
    assert {inode for name, inode in tree(tmp_path / "cap").items() if name != "parts.txt"} == stored


def test_same_images_give_the_same_names(filled: Products, tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_folder(filled, "cap", tmp_path / name)
    assert tree(tmp_path / "one").keys() == tree(tmp_path / "two").keys()


def test_excluded_images_are_left_out_and_test_images_set_apart(filled: Products, tmp_path: Path) -> None:
    good, total = filled.images.page("cap", ImageFilter(label="good"), 99)
    assert total == 12
    filled.images.relabel("cap", [ImageLabel(image=good[0].sha256, excluded=True)])
    chosen = {row.sha256 for row in good[1:4]}
    make_folder(filled, "cap", tmp_path, chosen.__contains__)
    assert len(layout.train_images(tmp_path, "cap")) == 8
    samples = layout.test_samples(tmp_path, "cap")
    assert {sample.path.stem[-64:] for sample in samples if sample.defect is None} == chosen


def test_without_hard_links_files_are_copied(
    filled: Products, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    make_folder(filled, "cap", tmp_path)
    assert len(layout.train_images(tmp_path, "cap")) == 12


def test_lost_or_cut_file_is_named(filled: Products, tmp_path: Path) -> None:
    first, second = filled.images.included("cap")[:2]
    filled.images.files.path("cap", file_name(first)).unlink()
    filled.images.files.path("cap", file_name(second)).write_bytes(b"")
    for image in (first, second):
        with pytest.raises(Problem, match=f"image '{image.name}' is missing or damaged"):
            make_folder(filled, "cap", tmp_path / image.sha256)
        filled.images.relabel("cap", [ImageLabel(image=image.sha256, excluded=True)])
    make_folder(filled, "cap", tmp_path / "without")


def test_findings_of_the_check_mark_images(filled: Products, make_image: MakeImage, tmp_path: Path) -> None:
    small = filled.images.add("cap", make_image(png(picture(50)[:40, :40]), name="cut.png"))[0]
    make_folder(filled, "cap", tmp_path / "first")
    filled.images.delete("cap", file_name(filled.images.included("cap")[0])[:64])
    checked = check_data(tmp_path / "first", "cap", threads=1)
    assert "size" in checked.counts
    record_check(filled, "cap", json.loads(checked.model_dump_json()))
    row = filled.images.find("cap", small.sha256)
    found = [ImageFinding.model_validate(one) for one in json.loads(row.findings)]
    [size] = [one for one in found if one.kind == "size"]
    assert size.severity == "warning"
    assert "cut.png" in size.message
    assert "train/good" not in size.message
    marked, total = filled.images.page("cap", ImageFilter(finding="size"), 9)
    assert ([one.sha256 for one in marked], total) == ([small.sha256], 1)
    assert (
        filled.counts(["cap"])["cap"].findings == filled.images.page("cap", ImageFilter(finding="any"), 9)[1]
    )
    assert filled.get("cap").checked_ms is not None
    record_check(filled, "cap", {"findings": []})
    assert filled.images.page("cap", ImageFilter(finding="any"), 9)[1] == 0


def test_finding_of_all_images_names_few_others(filled: Products) -> None:
    """Each of n images with n - 1 others would fill database and memory."""
    images = filled.images.included("cap")
    files = [f"train/good/{file_name(image)}" for image in reversed(images)]
    found = {"kind": "depth", "severity": "warning", "measure": 12.0, "message": "12 bits", "files": files}
    record_check(filled, "cap", {"findings": [found]})
    for index, image in enumerate(images):
        [finding] = json.loads(filled.images.find("cap", image.sha256).findings)
        # The first in any order that is always the same: the page keeps it, and leaves out the others.
        assert finding["others"] == [one.sha256 for i, one in enumerate(images) if i != index][:10]


def test_copies_name_each_other(filled: Products) -> None:
    first, second = filled.images.included("cap")[:2]
    files = [f"train/good/{file_name(first)}", f"test/scratch/0123456789abcdef_{file_name(second)}"]
    found = {"kind": "near_duplicate", "severity": "warning", "measure": 0.1, "files": files}
    message = f"{files[0]} and {files[1]} are almost the same"
    record_check(filled, "cap", {"findings": [{**found, "message": message}]})
    for image, other in ((first, second), (second, first)):
        [finding] = json.loads(filled.images.find("cap", image.sha256).findings)
        assert finding["others"] == [other.sha256]
        assert finding["message"] == f"{first.name} and {second.name} are almost the same"
