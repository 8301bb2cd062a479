"""The report of a version's training, whatever whoever uploaded it has written."""

import hashlib
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.web.training_report import TrainingReport, _Check, training_report
from flows.fastflow import bundle, models_folder
from training.datasets.check.findings import DataCheck, Finding


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


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        '{"epoch": 1, "fit_nll": [1.0]}',
        '{"epoch": 1, "fit_nll": [1.0]}\n{"epoch": 2, "fit_nll": []}',
        '{"epoch": 1, "fit_nll": [1.0]}\n{"epoch": 2, "fit_nll": [NaN]}',
        '{"epoch": 1, "fit_nll": [1.0]}\n{"epoch": 1, "fit_nll": [1.0]}',
        '{"epoch": 1, "fit_nll": 3}\n{"epoch": 2, "fit_nll": 3}',
        '{"epoch": 1, "fit_nll": [1.7e308, 1.7e308]}\n{"epoch": 2, "fit_nll": [1.0]}',
        '{"epoch": 1, "fit_nll": [1.0]}\n{"epoch": 1' + 400 * "0" + ', "fit_nll": [1.0]}',
        '{"epoch": 1, "fit_nll": [1.0]}\n{"epoch": -1, "fit_nll": [1.0]}',
    ],
)
def test_a_record_of_epochs_that_cannot_be_drawn(folder: Path, text: str) -> None:
    assert write(folder, "metrics.jsonl", text).loss is None


@pytest.mark.parametrize("value", ["1.0", "1e30", "-1e30"])
def test_a_loss_that_stays_the_same_is_drawn(folder: Path, value: str) -> None:
    line = '{{"epoch": {}, "fit_nll": [{}], "held_out_nll": null}}'
    loss = write(folder, "metrics.jsonl", "\n".join(line.format(i, value) for i in (1, 2))).loss
    assert loss is not None
    assert (loss.held_out, loss.last_held_out) == ("", None)


@pytest.mark.parametrize("text", ["", "[]", '{"findings": 3}', '{"findings": [{"severity": "high"}]}'])
def test_findings_that_cannot_be_read(folder: Path, text: str) -> None:
    assert write(folder, "data_check.json", text).findings is None


def check_of(count: int) -> str:
    """A data check of so many findings, as the trainer writes it."""
    name = "train/good/camera-3_20261125T011500.png"
    finding = Finding(kind="outlier", severity="warning", files=[name, name], message=f"{name} ~ {name}")
    checked = DataCheck(
        category="tiny",
        layout="plain",
        train=count,
        different=count,
        test=None,
        no_test=None,
        masks=0,
        sizes=[],
        seconds=1.0,
        findings=[finding] * count,
    )
    return checked.model_dump_json(indent=1)


def test_of_very_many_findings_the_first_are_shown(folder: Path) -> None:
    """Ten thousand pictures may have three each."""
    findings = write(folder, "data_check.json", check_of(30_000)).findings
    assert findings is not None
    assert len(findings) == 100


@pytest.mark.parametrize(
    "text",
    [
        check_of(50_001),
        check_of(1) + 12 * 2**20 * " ",
        '{"findings": [' + "1, " * 100_000 + "1]}",
        '{"findings": [], "others": [' + "[], " * 300_000 + "[]]}",
    ],
    ids=["more than any training has", "more bytes", "of which none is one", "beside very many lists"],
)
def test_findings_without_end_are_shown_as_none_that_can_be_read(folder: Path, text: str) -> None:
    assert write(folder, "data_check.json", text).findings is None


def test_of_findings_that_are_none_the_first_alone_is_an_error() -> None:
    """Of each of four million an error took gigabytes, for who may see the page."""
    with pytest.raises(ValidationError) as caught:
        _Check.model_validate({"findings": [1] * 1000})
    assert caught.value.error_count() == 1


def test_a_page_is_found(folder: Path) -> None:
    assert write(folder, "other.html", "<p>").page == "other.html"
    assert write(folder, "report.html", "<p>").page == "report.html"


def test_files_that_were_changed_are_not_shown(folder: Path) -> None:
    (folder / "report/config.yaml").write_text("changed")
    assert training_report(folder).settings is None
    (folder / bundle.MANIFEST).write_text("{}")
    assert training_report(folder) == TrainingReport(None, None, None, None)
