"""The comparison of speed: equal sizes, models that compute, and memory that is measured."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("normflows")
pytest.importorskip("FrEIA")

from bench.flows.speed import CHANNELS, SIZE, compare, freia_glow, memory, normflows_glow, ours

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def test_they_have_one_size_and_compute_log_dets() -> None:
    x = torch.randn(2, CHANNELS, SIZE, SIZE)
    counts = []
    models = (ours(2, 8), normflows_glow(2, 8), freia_glow(2, 8), freia_glow(2, 8, learned=False))
    for model in models:
        z, log_det = model.train()(x)
        assert z.shape == x.shape
        assert log_det.shape == (2,)
        assert log_det.isfinite().all()
        counts.append(sum(p.numel() for p in model.parameters()))
    assert counts[0] == counts[1]
    # Without a learned mixing; at this width that is a good part of all.
    assert counts[0] > counts[3] > 0.5 * counts[0]
    assert abs(counts[2] / counts[0] - 1) < 0.1


def test_times_and_ratios_are_of_this_run() -> None:
    found = compare(1, 4, 2, rounds=3)
    assert set(found.ratio) == {"normflows", "FrEIA", "FrEIA, fixed mixing"}
    assert all(value > 0 for value in [*found.milliseconds.values(), *found.ratio.values()])


def test_more_steps_keep_more_memory_unless_it_is_recomputed() -> None:
    few, many = memory(4, 16, 64), memory(24, 16, 64)
    assert many["kept"] > 3 * few["kept"]
    assert many["recomputed"] < many["kept"] / 2


def test_it_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "bench.flows.speed", "--quick"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "peak of a step" in done.stdout
    assert (tmp_path / "bench-results/flows/speed.json").exists()
