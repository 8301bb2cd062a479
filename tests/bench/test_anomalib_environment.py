"""Tests of the choice of anomalib's interpreter."""

import sys
from pathlib import Path

import pytest

from bench.anomalib_environment import EnvironmentMissingError, anomalib_python


def test_named_interpreter_precedes_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALIB_PYTHON", str(tmp_path / "absent"))
    assert anomalib_python(Path(sys.executable)) == Path(sys.executable)
    with pytest.raises(EnvironmentMissingError, match=r"no interpreter at .*absent"):
        anomalib_python()
    monkeypatch.setenv("ANOMALIB_PYTHON", sys.executable)
    assert anomalib_python() == Path(sys.executable)
