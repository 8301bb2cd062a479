"""The report of a version's training, whatever whoever uploaded it has written."""

import hashlib
import json
from pathlib import Path

import pytest

from app.web.training_report import TrainingReport, training_report
from flows.fastflow.bundle import bundle, models_folder


@pytest.fixture
def folder(store: Path) -> Path:
    return models_folder.resolve(store, "tiny")


def write(folder: Path, name: str, text: str) -> TrainingReport:
    """What is read after a file of the report has been replaced."""
    data = text.encode()
    (folder / "report" / name).write_bytes(data)
    manifest = json.loads((folder / bundle.MANIFEST).read_text())
    manifest["files"][f"report/{name}"] = hashlib.sha256(data).hexdigest()
    (folder / bundle.MANIFEST).write_text(json.dumps(manifest))
    return training_report(folder)


def test_what_the_trainer_leaves(folder: Path) -> None:
    report = training_report(folder)
    assert report.loss is not None
    assert len(report.loss.fitted.split()) == 4  # epochs
    assert len(report.loss.held_out.split()) == 4
    epochs = [json.loads(line) for line in (folder / "report/metrics.jsonl").read_text().splitlines()]
    last = epochs[-1]["fit_nll"]
    assert report.loss.last_fitted == pytest.approx(sum(last) / len(last))
    assert report.findings is not None
    assert report.settings is not None
    assert "target_fpr" in report.settings
    assert report.page is None
    names = json.loads((folder / "report/highest.json").read_text())
    assert report.highest == [(name, f"highest_{i}.webp") for i, name in enumerate(names)]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '"name"'])
def test_unreadable_names_show_no_images(folder: Path, text: str) -> None:
    assert write(folder, "highest.json", text).highest == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"epoch": 1, "fit_nll": [1.0]}',
        '{"epoch": 1, "fit_nll": [1.0]}\n{"epoch": 2, "fit_nll": []}',
        '{"epoch": 1, "fit_nll": [1.0]}\n{"epoch": 2, "fit_nll": [NaN]}',
    ],
)
def test_a_record_of_epochs_that_cannot_be_drawn(folder: Path, text: str) -> None:
    assert write(folder, "metrics.jsonl", text).loss is None


@pytest.mark.parametrize("value", ["1.0", "-1e30"])
def test_a_loss_that_stays_the_same_is_drawn(folder: Path, value: str) -> None:
    line = '{{"epoch": {}, "fit_nll": [{}], "held_out_nll": null}}'
    loss = write(folder, "metrics.jsonl", "\n".join(line.format(i, value) for i in (1, 2))).loss
    assert loss is not None
    assert (loss.held_out, loss.last_held_out) == ("", None)


@pytest.mark.parametrize("text", ["", '{"findings": 3}', '{"findings": [{"severity": "high"}]}'])
def test_findings_that_cannot_be_read(folder: Path, text: str) -> None:
    assert write(folder, "data_check.json", text).findings is None


def test_files_that_were_changed_are_not_shown(folder: Path) -> None:
    (folder / "report/config.yaml").write_text("changed")
    assert training_report(folder).settings is None
    (folder / bundle.MANIFEST).write_text("{}")
    assert training_report(folder) == TrainingReport()
