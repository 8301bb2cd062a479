"""Licences of data sets, and their non-commercial terms."""

from pathlib import Path

import pytest

from training.data.licence import forbids_commercial_use, licence


@pytest.mark.parametrize("name", ["licence.txt", "license.txt", "LICENSE.txt", "License.TXT"])
def test_its_file_has_either_name_in_any_case(tmp_path: Path, name: str) -> None:
    assert licence(tmp_path) is None
    (tmp_path / name).write_text("CC0-1.0\n")
    assert licence(tmp_path) == "CC0-1.0"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", None),
        (" \n\n", None),
        ("\nCC BY 4.0\nand more\n", "CC BY 4.0"),
        ("CC BY-NC-SA 4.0\nnot for commercial use\n", "CC BY-NC-SA 4.0"),
        (
            "Copyright 2019 A Company\r\n\r\nThis work is licensed\r\nunder CC BY-NC-SA 4.0, \r\nas it is.",
            "Copyright 2019 A Company; This work is licensed under CC BY-NC-SA 4.0, as it is.",
        ),
        (
            "Terms\nIt may not be used for\ncommercial purposes.",
            "Terms; It may not be used for commercial purposes.",
        ),
        (f"Terms\n{'a ' * 500}non-commercial{' b' * 500}", f"Terms; {'a ' * 30}non-commercial{' b' * 30}"),
        ("Terms\n" + "a" * 2**17 + "\nnon-commercial", "Terms"),  # so far none reads
    ],
)
def test_it_is_the_first_line_and_what_forbids_commerce(tmp_path: Path, text: str, said: str | None) -> None:
    (tmp_path / "licence.txt").write_text(text, newline="")
    assert licence(tmp_path) == said


@pytest.mark.parametrize(
    ("text", "forbids"),
    [
        ("CC BY-NC-SA 4.0", True),
        ("CC-BYNC", True),
        ("Attribution-NonCommercial-ShareAlike 4.0 International", True),
        ("for non\u2011commercial use", True),
        ("It may not be used for any commercial purpose", True),
        ("Commercial use is strictly prohibited.", True),
        ("for research use only", True),
        ("for personal use only", True),
        ("CC BY 4.0", False),
        ("MIT", False),
        ("commercial use is permitted", False),
        ("Apache-2.0", False),
    ],
)
def test_non_commercial_licences_are_recognised(text: str, forbids: bool) -> None:
    assert forbids_commercial_use(text) == forbids
