"""Which interpreter has anomalib."""

import sys
from pathlib import Path

import pytest

from bench.anomalib_environment import EnvironmentMissingError, anomalib_python


def test_the_one_that_is_named_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALIB_PYTHON", str(tmp_path / "absent"))
    assert anomalib_python(Path(sys.executable), tmp_path / "venv") == Path(sys.executable)
    monkeypatch.setenv("ANOMALIB_PYTHON", sys.executable)
    assert anomalib_python(None, tmp_path / "venv") == Path(sys.executable)
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize("by", ["argument", "variable"])
def test_one_that_is_not_there_is_refused(by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALIB_PYTHON", str(tmp_path / "python") if by == "variable" else "")
    with pytest.raises(EnvironmentMissingError, match="there is no interpreter"):
        anomalib_python(tmp_path / "python" if by == "argument" else None, tmp_path / "venv")
    assert not (tmp_path / "venv").exists()


def test_an_environment_that_was_made_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANOMALIB_PYTHON", raising=False)
    (tmp_path / "installed").touch()
    assert anomalib_python(None, tmp_path) == tmp_path / "bin" / "python"


@pytest.mark.slow  # pip is installed twice
def test_one_that_cannot_be_made_is_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANOMALIB_PYTHON", raising=False)
    # Nowhere to install from.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    for _ in range(2):
        with pytest.raises(EnvironmentMissingError, match=r"anomalib.*could not be installed"):
            anomalib_python(None, tmp_path / "venv")
