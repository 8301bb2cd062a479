"""Names tell which images show the same part; of each part one calibrates."""

from pathlib import Path

import numpy as np
import pytest

from flows.fastflow.calibration.images_per_part import (
    PARTS,
    PartsError,
    number_parts,
    parts_from_names,
    parts_or_single_images,
    pick_one_per_part,
)


def say(folder: Path, text: str | bytes) -> Path:
    (folder / PARTS).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def test_without_the_file_each_image_shows_another_part(tmp_path: Path) -> None:
    assert parts_from_names(["a_1.png", "a_2.png"], tmp_path) is None
    assert number_parts(["a_1.png", "a_2.png", "a_1.png"], tmp_path).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("expression", "parts"),
    [
        (r"^[a-z]+\d+", ["cap1", "cap2", "cap1"]),  # without groups all that it matches
        (r"(\d+)_", ["1", "2", "1"]),
        (r"^([a-z]+)(\d+)_", ["cap\x001", "cap\x002", "cap\x001"]),
        (r"^(left)?cap(\d)", ["\x001", "\x002", "\x001"]),  # a group may match nothing
    ],
)
def test_groups_tell_parts_apart(tmp_path: Path, expression: str, parts: list[str]) -> None:
    say(tmp_path, expression)
    assert parts_from_names(["cap1_a.png", "cap2_a.png", "cap1_b.png"], tmp_path) == parts


def test_unmatched_names_become_single_image_parts(tmp_path: Path) -> None:
    names = ["1_a.png", "odd.png", "1_b.png", "odd.png", "2_a.png"]
    assert parts_or_single_images(names, tmp_path) is None
    parts = parts_or_single_images(names, say(tmp_path, r"^(\d*)"))
    assert parts is not None
    assert (parts[0], parts[2], parts[4]) == ("1", "1", "2")
    assert len(set(parts)) == 4
    with pytest.raises(PartsError, match="is no regular expression"):
        parts_or_single_images(names, say(tmp_path, "^(a"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "must hold one regular expression; it has 0 lines"),
        ("# nothing\n", "it has 0 lines"),
        ("^a\n^b\n", "it has 2 lines"),
        ("^(a", r"'\^\(a' is no regular expression: missing \)"),
        (b"^pr\xfcf", "is not in UTF-8"),
        ("b*", r"finds no part in the name a_1.png"),
        ("a{99999999999999999999}", "is no regular expression: "),
        ("^b", r"'\^b' finds no part in the name a_1.png"),
    ],
)
def test_what_cannot_be_used_is_rejected(tmp_path: Path, text: str | bytes, told: str) -> None:
    say(tmp_path, text)
    with pytest.raises(PartsError, match=told) as error:
        number_parts(["a_1.png"], tmp_path)
    assert str(tmp_path / PARTS) in str(error.value)


def test_of_each_part_the_least_hash_is_taken() -> None:
    parts = np.array([0, 1, 0, 1, 2])
    assert pick_one_per_part(parts, ["b", "c", "a", "d", "e"]).tolist() == [1, 2, 4]
    assert pick_one_per_part(np.arange(4), ["d", "c", "b", "a"]).tolist() == [0, 1, 2, 3]
