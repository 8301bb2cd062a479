"""Commands that make a version, on one server's copy of shared models."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

import flowgauge
from flows.fastflow.bundle import models_folder


@pytest.mark.parametrize(
    ("command", "images"), [("train", "data"), ("calibrate", "images"), ("learn", "defects")]
)
def test_copy_is_refused_before_images_are_read(command: str, images: str, tmp_path: Path) -> None:
    (tmp_path / models_folder.COPY).touch()
    arguments = [command, "--category", "tiny", "--models", str(tmp_path), f"--{images}", str(tmp_path)]
    result = CliRunner().invoke(flowgauge.app, arguments)
    assert result.exit_code == 1
    assert "several servers share" in result.stderr
