"""Licences as data sets bring them, and whether they forbid commerce."""

from pathlib import Path

import pytest

from training.datasets.licence import forbids_commerce, licence


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
    "text",
    [
        "CC BY-NC-SA 4.0",
        "CC-BY-NC4.0",
        "Creative Commons BY_NC",
        "Attribution-NonCommercial-ShareAlike 4.0 International",
        "for non commercial use only",
        "for non\u2011commercial use",
        "no commercial use",
        "not for commercial use",
        "It may not be used for any commercial purpose",
        "Commercial use is strictly prohibited.",
        "commercial use not permitted",
        "This licence forbids commercial use",
        "for research use only",
        "for academic purposes only",
        "only for non-profit, only for scientific research",
        "You may not use the material for commercial purposes.",
        "Commercial use requires a licence of ours",
        "for personal use only",
        "CC-BYNC",
    ],
)
def test_what_forbids_commerce_is_known(text: str) -> None:
    assert forbids_commerce(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "CC BY-SA 4.0",
        "MIT",
        "Copyright ACME Inc",
        "INCLUDING BUT NOT LIMITED TO",
        "Commercial use is permitted",
        "There are no restrictions on commercial use",
        "not only for research, but for commercial use, too",
        "for research and for commercial use",
        "a commercial product",
        "for any purpose, commercial or non-commercial, and by any means",
        "either commercially or\nnoncommercially",
        "This alternative is allowed only for noncommercial distribution",
        "allowed only occasionally and noncommercially, and only if you received it so",
        "Free for commercial and non-commercial use",
        "No commercial restrictions apply",
        "Commercial use is not prohibited",
        "Red Hat, Raleigh, NC 27601",
        "nc=3",
        "not\nonly for research",
    ],
)
def test_what_does_not_is_not_taken_for_it(text: str) -> None:
    assert not forbids_commerce(text)
