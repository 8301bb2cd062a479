"""Plain folders: which pictures are good, which are kept for the test, and what is not clear."""

import unicodedata
from pathlib import Path

import pytest

from flows.fastflow.parts import PARTS
from tests.odd_names import renamed
from tests.training.datasets.trees import names, touch
from training.datasets import layout, plain
from training.datasets.sample import DatasetError, NoTestPicturesError, Sample


def test_a_folder_of_pictures_is_all_good(tmp_path: Path) -> None:
    touch(tmp_path / "cap", "b.PNG", "a.jpg", "notes.txt", "._a.jpg")
    assert names(tmp_path / "cap", plain.train_images(tmp_path, "cap")) == ["a.jpg", "b.PNG"]
    with pytest.raises(DatasetError, match=r"good parts alone.*: to test, move them into .*cap/good, "):
        plain.test_samples(tmp_path, "cap")


def test_what_is_said_of_good_parts_alone_leads_to_a_test(tmp_path: Path) -> None:
    cap = tmp_path / "cap"
    touch(cap, *(f"ok/{i}.png" for i in range(10)))
    with pytest.raises(DatasetError, match=r"to test, put defective parts into .*cap/defect and train anew"):
        plain.test_samples(tmp_path, "cap")
    touch(cap, "defect/0.png")
    assert len(plain.test_samples(tmp_path, "cap")) == 3


@pytest.mark.parametrize("name", ["good", "ok", "normal", "OK"])
def test_without_defects_every_good_part_is_learned_from(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "cap", *(f"{name}/{i}.png" for i in range(10)))
    assert len(plain.train_images(tmp_path, "cap")) == 10


def test_with_defects_a_fifth_of_the_good_parts_is_kept_for_the_test(tmp_path: Path) -> None:
    cap = tmp_path / "cap"
    touch(cap, *(f"good/{i}.png" for i in range(50)), "scratch/1.png", "bad/2.png")
    learned, tested = plain.train_images(tmp_path, "cap"), plain.test_samples(tmp_path, "cap")
    kept = [s.path for s in tested if s.defect is None]
    assert (len(learned), len(kept)) == (40, 10)
    assert sorted([*learned, *kept]) == sorted((cap / "good").iterdir())
    assert tested[10:] == [
        Sample(cap / "bad/2.png", "bad", None),
        Sample(cap / "scratch/1.png", "scratch", None),
    ]
    # By what the files are called alone: a copy elsewhere, made in another order, is divided the same.
    touch(tmp_path / "copy", "bad/2.png", *(f"good/{i}.png" for i in reversed(range(50))))
    assert [p.name for p in plain.train_images(tmp_path, "copy")] == [p.name for p in learned]


def test_more_pictures_leave_nearly_all_others_where_they_were(tmp_path: Path) -> None:
    touch(tmp_path / "cap", *(f"good/{i}.png" for i in range(100)), "bad/1.png")
    before = set(plain.train_images(tmp_path, "cap"))
    touch(tmp_path / "cap", *(f"good/new-{i}.png" for i in range(100)))
    after = set(plain.train_images(tmp_path, "cap"))
    old = {path for path in after if not path.name.startswith("new")}
    assert len(after) == 160
    assert len(before ^ old) <= 10


def test_two_good_parts_are_one_to_learn_from_and_one_to_test(tmp_path: Path) -> None:
    touch(tmp_path / "cap", "good/0.png", "good/1.png", "bad/2.png")
    assert len(plain.train_images(tmp_path, "cap")) == 1
    (tmp_path / "cap/good/1.png").unlink()
    with pytest.raises(DatasetError, match="one good part, which cannot be both"):
        plain.train_images(tmp_path, "cap")


def test_all_pictures_of_a_part_are_learned_from_or_kept_for_the_test(tmp_path: Path) -> None:
    cap = tmp_path / "cap"
    touch(cap, *(f"good/{part}_{i}.png" for part in range(20) for i in range(3)), "bad/1.png")
    (cap / PARTS).write_text("^(.+)_")
    learned = {path.name.partition("_")[0] for path in plain.train_images(tmp_path, "cap")}
    good = [sample.path for sample in plain.test_samples(tmp_path, "cap") if sample.defect is None]
    kept = {path.name.partition("_")[0] for path in good}
    assert (len(learned), len(kept), len(good)) == (16, 4, 12)
    assert learned.isdisjoint(kept)


def test_pictures_of_one_part_cannot_be_both(tmp_path: Path) -> None:
    touch(tmp_path / "cap", "good/a_1.png", "good/a_2.png", "bad/1.png")
    (tmp_path / "cap" / PARTS).write_text("^(.+)_")
    with pytest.raises(DatasetError, match="one good part, which cannot be both"):
        plain.train_images(tmp_path, "cap")


@pytest.mark.parametrize("folder", ["ground_truth", "masks"])
def test_masks_are_no_kind_of_defect(tmp_path: Path, folder: str) -> None:
    cap = tmp_path / "cap"
    touch(cap, "ok/0.png", "ok/1.png", "ng/2.png", f"{folder}/ng/2_mask.png", f"{folder}/ng/3_mask.png")
    assert plain.test_samples(tmp_path, "cap")[1:] == [
        Sample(cap / "ng/2.png", "ng", cap / folder / "ng/2_mask.png")
    ]
    assert names(cap / folder, plain.masks(tmp_path, "cap")) == ["ng/2_mask.png", "ng/3_mask.png"]


def test_masks_beside_their_pictures_are_masks(tmp_path: Path) -> None:
    """And no defective parts."""
    cap = tmp_path / "cap"
    touch(cap, *(f"good/{i}.png" for i in range(10)))
    touch(cap, "dent/0.jpg", "dent/0_mask.png", "dent/1.jpg", "dent/2_mask.png", "masks/dent/1_mask.png")
    assert [s for s in plain.test_samples(tmp_path, "cap") if s.defect] == [
        Sample(cap / "dent/0.jpg", "dent", cap / "dent/0_mask.png"),
        Sample(cap / "dent/1.jpg", "dent", cap / "masks/dent/1_mask.png"),
        Sample(cap / "dent/2_mask.png", "dent", None),  # of nothing, so it is no mask
    ]
    assert names(cap, plain.masks(tmp_path, "cap")) == ["masks/dent/1_mask.png", "dent/0_mask.png"]


@pytest.mark.parametrize("end", ["_GT", "_gt", "_label", "_Labels", "_MASK"])
def test_masks_have_other_names_too(tmp_path: Path, end: str) -> None:
    """As those of KolektorSDD, among its pictures, which are not all good."""
    cap = tmp_path / "cap"
    touch(cap, "good/0.png", "good/1.png", "ng/2.jpg", f"ng/2{end}.bmp", "ng/3.jpg", f"ng/4{end}.png")
    touch(cap, f"masks/ng/3{end}.png")
    assert plain.test_samples(tmp_path, "cap")[1:] == [
        Sample(cap / "ng/2.jpg", "ng", cap / f"ng/2{end}.bmp"),
        Sample(cap / "ng/3.jpg", "ng", cap / f"masks/ng/3{end}.png"),
        Sample(cap / f"ng/4{end}.png", "ng", None),  # of nothing, so it is no mask
    ]
    assert names(cap, plain.masks(tmp_path, "cap")) == [f"masks/ng/3{end}.png", f"ng/2{end}.bmp"]
    touch(tmp_path / "kos01", "Part0.jpg", "Part1.jpg", f"Part1{end}.bmp")
    with pytest.raises(DatasetError, match=rf"Part1{end}\.bmp is named as the mask of Part1\.jpg, and good"):
        plain.train_images(tmp_path, "kos01")


def test_a_view_of_a_label_is_no_mask(tmp_path: Path) -> None:
    """It is a photograph as the other one is, and of the same type of file."""
    cap = tmp_path / "cap"
    touch(cap, "good/0.png", "good/0_label.png", "good/1.png", "ng/2.png", "ng/2_label.png")
    defective = [s for s in plain.test_samples(tmp_path, "cap") if s.defect]
    assert [s.path.name for s in defective] == ["2.png", "2_label.png"]
    assert [s.mask for s in defective] == [None, None]
    assert plain.masks(tmp_path, "cap") == []


@pytest.mark.parametrize("where", ["masks/ng", "masks", "ground_truth/ng"])
def test_each_view_has_the_mask_of_its_own_name(tmp_path: Path, where: str) -> None:
    """And not that of the label, which is called as a mask of the other view might be."""
    cap = tmp_path / "cap"
    touch(cap, "good/0.png", "good/1.png", "ng/7.png", "ng/7_label.png", "ng/8.png")
    touch(cap, *(f"{where}/{name}.png" for name in ("7", "7_label", "8_mask")))
    found = {s.path.name: s.mask for s in plain.test_samples(tmp_path, "cap") if s.defect}
    assert found == {
        "7.png": cap / where / "7.png",
        "7_label.png": cap / where / "7_label.png",
        "8.png": cap / where / "8_mask.png",
    }


def test_what_lies_a_folder_too_deep_is_told_where_nothing_is_there_to_test_with(tmp_path: Path) -> None:
    cap = tmp_path / "cap"
    touch(cap, "good/0.png", "good/1.png", "scratch/left/2.png")
    with pytest.raises(
        NoTestPicturesError, match=r"move up what lies in .*scratch/left, where none is looked"
    ):
        plain.test_samples(tmp_path, "cap")


def test_of_two_masks_beside_a_picture_neither_is_a_part(tmp_path: Path) -> None:
    cap = tmp_path / "cap"
    touch(cap, "good/0.png", "good/1.png", "ng/2.png", "ng/2_gt.png", "ng/2_mask.png", "ng/label.png")
    assert plain.test_samples(tmp_path, "cap")[1:] == [
        Sample(cap / "ng/2.png", "ng", cap / "ng/2_mask.png"),
        Sample(cap / "ng/label.png", "ng", None),
    ]
    assert names(cap, plain.masks(tmp_path, "cap")) == ["ng/2_gt.png", "ng/2_mask.png"]


@pytest.mark.parametrize("where", ["good/", ""])
def test_a_mask_among_good_parts_is_refused(tmp_path: Path, where: str) -> None:
    touch(tmp_path / "cap", *(f"{where}{i}.png" for i in range(10)), f"{where}3_mask.png")
    with pytest.raises(
        DatasetError, match=r"3_mask\.png is named as the mask of 3\.png, and good parts have"
    ):
        plain.train_images(tmp_path, "cap")


def test_masks_alone_keep_no_good_part_from_being_learned(tmp_path: Path) -> None:
    touch(tmp_path / "cap", "ok/0.png", "ok/1.png", "masks/ng/2_mask.png", "empty/notes.txt")
    assert len(plain.train_images(tmp_path, "cap")) == 2


@pytest.mark.parametrize("folder", ["good", "scratch"])
def test_pictures_beside_folders_of_pictures_are_not_guessed_at(tmp_path: Path, folder: str) -> None:
    touch(tmp_path / "cap", "0.png", "1.png", f"{folder}/2.png")
    for find in (plain.train_images, plain.test_samples):
        with pytest.raises(DatasetError, match=rf"2 pictures beside .*\({folder}/\).*whether 0\.png is good"):
            find(tmp_path, "cap")


def test_defects_alone_are_nothing_to_learn_from(tmp_path: Path) -> None:
    touch(tmp_path / "cap", "bad/0.png", "good/notes.txt")
    with pytest.raises(
        DatasetError, match=r"no good parts in .*expected pictures in a folder good, ok or normal"
    ):
        plain.train_images(tmp_path, "cap")


def test_defective_parts_in_folders_within_theirs_are_named(tmp_path: Path) -> None:
    """Or all good ones would be learned from, and none be left to test on."""
    cap = tmp_path / "cap"
    touch(cap, *(f"good/{i}.png" for i in range(10)), "defect/scratch/0.png", "defect/dent/0.png")
    for find in (plain.train_images, plain.test_samples):
        with pytest.raises(
            DatasetError, match=r"no defective parts in .*cap/defect itself.*\(dent, scratch\)"
        ):
            find(tmp_path, "cap")
    touch(cap, "defect/0.png")  # those within are then told by the data check
    assert len(plain.train_images(tmp_path, "cap")) == 8


def test_pictures_in_folders_within_good_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "cap/good/2026-01/0.png", "cap/good/2026-01/1.png", "cap/good/2026-02/0.png")
    wanted = r"looked for in .*good itself, .* there are 2 in .*2026-01, 1 in .*2026-02\. Move them up"
    with pytest.raises(DatasetError, match=wanted):
        plain.train_images(tmp_path, "cap")


def test_the_split_is_the_same_for_names_that_a_mac_has_copied(tmp_path: Path) -> None:
    """It takes accents off their letters; a mask may have been drawn on one, its picture not."""
    split = {}
    for form in ("NFC", "NFD"):
        cap = tmp_path / form / "cap"
        named = [unicodedata.normalize(form, f"good/prüf{i}.png") for i in range(20)]
        touch(cap, *named, unicodedata.normalize(form, "ng/kratzér.png"), "masks/ng/kratzér_mask.png")
        kept = plain.test_samples(cap.parent, "cap")
        split[form] = [unicodedata.normalize("NFC", sample.path.name) for sample in kept]
        assert kept[-1].mask is not None
    assert split["NFC"] == split["NFD"]


@pytest.mark.parametrize("odd", ["cap/good/0.png", "cap/ng", "cap"])
def test_a_name_that_is_not_in_utf_8_is_refused_by_name(tmp_path: Path, odd: str) -> None:
    """Of a picture, of a kind of defect, of the category: no report could hold it."""
    touch(tmp_path / "cap", *(f"good/{i}.png" for i in range(4)), "ng/1.png")
    there = renamed(tmp_path / odd)
    category = there.name if odd == "cap" else "cap"
    with pytest.raises(DatasetError, match=r"the name of .*pr\\xfcf\.png is not in UTF-8"):
        layout.test_samples(tmp_path, category)
