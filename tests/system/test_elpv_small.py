"""Real solar cells, a small part of them: learned, measured, and rejected about as often as promised."""

import csv
import re
from pathlib import Path

import pytest

from flows.fastflow.bundle.bundle import read_manifest
from flows.fastflow.bundle.models_folder import resolve
from flows.fastflow.calibration.conformal import false_reject_band
from tests.system.processes import FlowGauge
from training.data import elpv


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """A data folder with 120 good cells to train on, 60 good and 60 defective ones to test on."""
    category = elpv.lay_out(tmp_path / "data")
    for name, count in (("train/good", 120), ("test/good", 60), ("test/defective", 60)):
        files = sorted((category / name).iterdir())
        kept = {files[i * len(files) // count] for i in range(count)}
        for file in files:
            if file not in kept:
                file.unlink()
    return category.parent


@pytest.mark.slow
def test_few_solar_cells_suffice_to_find_defects(flowgauge: FlowGauge, cells: Path) -> None:
    """Measured: image AUROC .886."""
    (flowgauge.cwd / "run.yaml").write_text(
        "input_size: [128, 128]\nfit: {epochs: 6}\ncalibration: {target_fpr: 0.1}\ndevice: cpu\n"
    )
    which = ("--data", cells, "--category", "solar_cell")
    flowgauge.run("train", *which, "--config", "run.yaml")
    said = flowgauge.run("evaluate", *which)
    [auroc] = re.findall(r"^image AUROC ([01]\.\d{3})$", said, re.MULTILINE)
    assert float(auroc) > 0.85

    manifest = read_manifest(resolve(flowgauge.cwd / "models", "solar_cell"))
    assert manifest.data.licence == elpv.LICENCE
    assert (manifest.data.n_fit, manifest.data.n_calibration) == (96, 24)
    assert manifest.thresholds["float32"].certified
    [file] = (flowgauge.cwd / "evaluations").rglob("scores.csv")
    with file.open(newline="") as opened:
        good = [row for row in csv.DictReader(opened) if row["defect"] == ""]
    rejected = sum(row["decision"] == "REJECT" for row in good)
    low, high = false_reject_band(24, 60, 0.1)
    assert low <= rejected <= high
