"""Small flows fitted by the commands, once for all tests."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import flowgauge

TINY = ("--hidden", "8", "--depth", "1", "--threads", "1", "--device", "cpu")


def _fit(out: Path, data: str, *options: str) -> Result:
    arguments = ["flows", "train", "glow", "--data", data, "--out", str(out), *TINY, *options]
    return CliRunner().invoke(flowgauge.app, arguments)


@pytest.fixture(scope="session")
def digits_fit(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """What the fit to the digits printed, and its folder. Not to be changed: copy it."""
    folder = tmp_path_factory.mktemp("flows") / "new" / "digits"
    return _fit(folder, "digits", "--steps", "60"), folder


@pytest.fixture(scope="session")
def digits_run(digits_fit: tuple[Result, Path]) -> Path:
    """Folder of a small Glow of the digits. Not to be changed: copy it."""
    result, folder = digits_fit
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="session")
def parts_run(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    """Folder of a small Glow of made-up parts, 16 x 16 and grey. Not to be changed: copy it."""
    folder = tmp_path_factory.mktemp("flows") / "parts"
    options = ["--size", "16", "--channels", "1", "--steps", "60"]
    result = _fit(folder, str(tiny_data / "tiny/train/good"), *options)
    assert result.exit_code == 0, result.output
    return folder
