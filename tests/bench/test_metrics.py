"""The benches of metrics: small runs of the memory's, and the table of differences with a reference."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import metrics_memory, metrics_reference


def test_memory_is_told_with_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert metrics_memory.main(["--maps", "6", "--size", "64"]) == 0
    said = capsys.readouterr().out
    assert "6 maps of 64 px" in said
    assert re.search(r"peak memory: \d+ MiB before, \d+ after the last map, \d+ in the end", said)
    assert re.search(r"AUROC 0\.8\d{5}, AP .* AUPRO 0\.3 0\.\d{6}", said)


def reference(folder: Path, shift: float) -> str:
    """An interpreter whose anomalib is our own metrics, a little off."""
    scored = metrics_reference.made_up(0, 8)
    heavy = metrics_reference.made_up(1, 8, tail=1.5)
    answers = [
        {name: value + shift for name, value in metrics_reference.measure(s).items()} for s in (scored, heavy)
    ]
    script = folder / "answer.py"
    script.write_text(
        "import json, pathlib\n"
        f"left = pathlib.Path({str(folder / 'left')!r})\n"
        f"answers = json.loads({json.dumps(json.dumps(answers))})\n"
        "print(json.dumps(answers[left.exists()]))\n"
        "left.touch()\n"
    )
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}"\n')
    python.chmod(0o755)
    return str(python)


@pytest.mark.parametrize(("shift", "ends"), [(5e-5, 0), (2e-4, 1)])
def test_differences_are_told_and_decide(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shift: float, ends: int
) -> None:
    python = reference(tmp_path, shift)
    assert metrics_reference.main(["--anomalib-python", python, "--pictures", "8"]) == ends
    said = capsys.readouterr().out
    assert said.count("difference") == 2 * 9 + 1
    assert f"largest difference {shift:.1e}, allowed 1e-04" in said


def test_made_up_maps_lie_where_torchmetrics_leaves_them_alone() -> None:
    scored = metrics_reference.made_up(3, 6, tail=1.5)
    assert scored.maps.min() == 0
    assert scored.maps.max() == 1
    assert scored.truth.tolist() == [False, True] * 3
    assert np.array_equal(scored.masks.any((1, 2)), scored.truth)
