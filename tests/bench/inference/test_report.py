"""Ratios within a round, and the tables that tell them."""

import json
from pathlib import Path

import pytest

from bench.inference.contestant import Results, Turn
from bench.inference.report import (
    Aim,
    Part,
    Table,
    contestants_table,
    markdown,
    per_round,
    quantiles,
    ratio,
    turns_for_files,
    where,
    write,
)


def test_a_ratio_is_of_the_same_round_and_their_median_counts() -> None:
    # The machine was four times slower in the second round: ratios do not see it, medians of each side would.
    found = ratio("a over b", [1.5, 8.0, 1.6], [1.0, 4.0, 1.0], Aim(1.6, at_most=True))
    assert found.values == (1.5, 2.0, 1.6)
    assert found.median == 1.6
    assert found.row == ["a over b", "1.60", "1.50 to 2.00", "at most 1.6", "yes"]
    assert found.figures["aim"] == {"limit": 1.6, "at_most": True, "met": True}


@pytest.mark.parametrize(
    ("aim", "below", "at", "above"),
    [(Aim(2.0, at_most=True), "yes", "yes", "no"), (Aim(2.0, at_most=False), "no", "yes", "yes")],
)
def test_an_aim_is_met_or_not(aim: Aim, below: str, at: str, above: str) -> None:
    assert [ratio("", [value], [1.0], aim).row[-1] for value in (1.9, 2.0, 2.1)] == [below, at, above]


def test_a_ratio_without_an_aim_is_neither() -> None:
    found = ratio("a over b", [1.0], [4.0])
    assert found.row == ["a over b", "0.25", "0.25 to 0.25", "", ""]
    assert found.figures["aim"] is None


@pytest.mark.parametrize(
    ("over", "under", "fault"),
    [
        ([], [], "got 0 and 0"),
        ([1.0], [1.0, 2.0], "got 1 and 2"),
        ([1.0, 1.0], [1.0, 0.0], r"nothing: cannot divide by 0\.0"),
    ],
)
def test_what_cannot_be_divided(over: list[float], under: list[float], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        ratio("nothing", over, under)


def test_quantiles_are_of_all_turns() -> None:
    assert quantiles([[n / 1000 for n in range(51)], [n / 1000 for n in range(51, 101)]]) == (
        "50.0 / 95.0 / 99.0"
    )


def results() -> Results:
    return Results(
        {
            ("A", "batch"): [Turn([0.8], 1.6, 8), Turn([0.4], 0.8, 8), Turn([4.0], 8.0, 8)],
            ("A", "one"): [Turn([0.010, 0.020], 0.1), Turn([0.030], 0.1), Turn([0.040], 0.1)],
        },
        {"A": 300 * 2**20},
        {"A": {"versions": {"torch": "2"}}},
    )


def test_a_line_for_each_contestant() -> None:
    found = contestants_table("All", results(), "one")
    assert found.rows == [["A", "100.00", "10.0", "200.00", "25.0 / 38.5 / 39.7", "300"]]
    assert len(found.header) == len(found.rows[0])
    assert "one picture" in found.header[4]
    assert per_round(results(), "A", "batch") == pytest.approx([100, 50, 500])


def test_files_have_every_call() -> None:
    found = turns_for_files(results())
    assert found["A"]["peak_bytes"] == 300 * 2**20
    assert found["A"]["one"][0] == {"images": 1, "cpu": 0.1, "seconds": [0.010, 0.020]}


def part() -> Part:
    return Part(
        "model",
        {"rounds": 3},
        [Table("All", ["", "ms"], [["A", "1.0"]])],
        [ratio("a over b", [3.0], [2.0], Aim(1.4, at_most=True))],
        ["int8 was left out: nncf is not installed"],
        {"A": 1},
    )


def test_a_page_says_where_and_how(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = where()
    assert place["versions"]["torch"]
    assert place["cores"] >= 1
    text = write(part(), tmp_path / "new", place)
    assert capsys.readouterr().out == text + "\n"
    assert (tmp_path / "new" / "model.md").read_text() == text == markdown(part(), place)
    assert f"{place['cores']} cores" in text
    assert f"torch {place['versions']['torch']}" in text
    assert "rounds 3." in text
    assert "| a over b | 1.50 | 1.50 to 1.50 | at most 1.4 | no |" in text
    assert "- int8 was left out" in text
    said = json.loads((tmp_path / "new" / "model.json").read_text())
    assert said["ratios"][0]["values"] == [1.5]
    assert said["where"] == place
    assert said["figures"] == {"A": 1}


def test_a_gpu_is_named() -> None:
    assert ", Some GPU;" in markdown(part(), {**where(), "gpu": "Some GPU"})
