from pathlib import Path

import pytest

from app.jobs import job_log
from app.jobs.job_log import JobLog


def test_lines_are_read_from_a_position(tmp_path: Path) -> None:
    log = JobLog(tmp_path / "log.txt")
    assert log.read(0) == (0, [])
    log.append("Schrägbild \x1b[31m\x00 ok\n")
    position, lines = log.read(0)
    assert lines == ["Schrägbild  [31m  ok"]
    log.append("more")
    assert log.read(position)[1] == ["more"]
    assert log.read(0)[1] == [*lines, "more"]


def test_size_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_log, "MAX_BYTES", 1000)
    log = JobLog(tmp_path / "log.txt")
    for _ in range(5):
        log.append("x" * 400)
    assert log.read(0)[1][-1].strip() == "further lines are left out: the log is at its limit"
    assert (tmp_path / "log.txt").stat().st_size <= 1100
