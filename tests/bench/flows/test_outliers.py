"""The benchmark of outliers: what is shown as strange, and it runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.flows.outliers import leave_out, simple_pictures, table
from training.density.fit import FitSettings
from training.density.pictures import Labels, Pictures, digits

ROOT = Path(__file__).parents[3]


def test_simple_pictures_are_integers_of_the_same_levels() -> None:
    real = digits().test[:20]
    for pictures in simple_pictures(real, 17, torch.Generator().manual_seed(0)).values():
        assert pictures.shape == real.shape
        assert torch.equal(pictures, pictures.round())
        assert pictures.min() >= 0
        assert pictures.max() <= 16


def test_classes_need_labels() -> None:
    data = digits()
    bare = Pictures(data.train, data.validation, data.test, data.levels)
    with pytest.raises(ValueError, match="needs labels"):
        leave_out(bare, 0, FitSettings(steps=1))


def test_what_is_strange_by_name_alone_is_not_found_strange() -> None:
    data = digits()
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randint(4, (n,), generator=generator) for n in (160, 80, 160)]
    some = Pictures(data.train[:160], data.validation[:80], data.test[:160], data.levels, Labels(*drawn))
    found = leave_out(some, 0, FitSettings(steps=1, batch_size=32))
    assert all(0.25 < value < 0.75 for value in found["class 0"].values())


def test_the_table_has_a_row_for_all_that_is_strange() -> None:
    lines = table({"blank": {"likelihood": 0.25, "typicality": 1.0}})
    assert lines[0] == "| strange | likelihood | typicality |"
    assert lines[2] == "| blank | 0.250 | 1.000 |"


@pytest.mark.slow
def test_it_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.flows.outliers", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "outliers.json").read_text())["auroc"]
    assert {"class 0", "class 1", "blank", "mean of the classes"} <= set(found)
    assert all(0 <= value <= 1 for row in found.values() for value in row.values())
    assert (tmp_path / "outliers.md").exists()
