"""Tests of reports and ratios."""

import json
from pathlib import Path

import pytest

from bench.report import Report, Table, figures_table, ratio


def test_ratio_divides_round_by_round() -> None:
    found = ratio("a over b", [3.0, 8.0, 6.0], [2.0, 4.0, 4.0])
    assert found.values == (1.5, 2.0, 1.5)
    assert found.median == 1.5
    assert found.row == ["a over b", "1.50", "1.50 to 2.00"]


def test_report_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(
        "model",
        {"rounds": 3},
        [Table("All", ["", "ms"], [["A", "1.0"]]), figures_table({"latency": {"p50": 1.5, "p95": 2}})],
        [ratio("a over b", [3.0], [2.0])],
        ["bfloat16 was left out"],
    )
    assert report.write(tmp_path / "new") == 0
    text = (tmp_path / "new" / "model.md").read_text()
    assert capsys.readouterr().out == text + "\n"
    for line in ("rounds 3.", "| A | 1.0 |", "| latency | p50: 1.5, p95: 2 |", "- bfloat16 was left out"):
        assert line in text
    assert "| a over b | 1.50 | 1.50 to 1.50 |" in text
    written = json.loads((tmp_path / "new" / "model.json").read_text())
    assert written["ratios"] == [{"what": "a over b", "values": [1.5], "median": 1.5}]
    assert written["machine"]["versions"]["torch"]


def test_failures_set_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Report("swap", failures=["an answer was wrong"]).write(tmp_path) == 1
    assert "1 failures:\n\n- an answer was wrong" in capsys.readouterr().out
