"""Findings as lines and as JSON."""

from pathlib import Path

import pytest

from training.data.check.findings import DataCheck, DataFinding, relative_message


def finding(number: int, **changes: object) -> DataFinding:
    told = {"kind": "size", "severity": "warning", "files": [f"{number}.png"], "message": f"{number} is odd"}
    return DataFinding.model_validate({**told, **changes})


def checked(*findings: DataFinding, test: int | None = 5) -> DataCheck:
    return DataCheck(
        category="disc",
        layout="MVTec AD",
        train=20,
        different=20,
        test=test,
        no_test=None,
        masks=2,
        sizes=[],
        seconds=1.25,
        findings=list(findings),
    )


@pytest.mark.parametrize(
    ("folder", "said", "told"),
    [
        ("h", "move them into h/mixdepth/good, not h/x", "move them into mixdepth/good, not x"),
        ("d", "solid/good and 'd/solid/0.png'", "solid/good and 'solid/0.png'"),
        ("/data", "/data/cap: see /data/cap/good (/data/cap/x)", "cap: see cap/good (cap/x)"),
        ("n", "<category>/train/good/*.png", "<category>/train/good/*.png"),
    ],
)
def test_paths_are_told_from_the_folder_on_and_others_stay(folder: str, said: str, told: str) -> None:
    assert relative_message(said, Path(folder)) == told


def test_lines_count_everything_and_show_some() -> None:
    corrupt = finding(9, kind="undecodable", severity="error", message="9.png: it is empty")
    assert checked(*(finding(i) for i in range(5)), corrupt).lines(2) == [
        "data check: 20 training images, 5 test images, 2 masks; 1 errors, 5 warnings (1.2 s)",
        "error: cannot be decoded (1)",
        "  9.png: it is empty",
        "warning: of another size than the rest (5)",
        "  0 is odd",
        "  1 is odd",
        "  and 3 more",
    ]
