"""The bench of starts measures what it says."""

import subprocess
import sys

import pytest

from bench.start import Start, program, report


def test_a_program_is_measured_to_its_end() -> None:
    busy = "import time; end = time.process_time() + 0.2\nwhile time.process_time() < end: pass"
    start = program(sys.executable, "-c", busy)
    assert 0.2 <= start.cpu < 5
    assert start.seconds >= 0.2
    assert start[2:] == (None, None, None)


def test_one_that_fails_is_no_start() -> None:
    with pytest.raises(subprocess.CalledProcessError, match="status 3"):
        program(sys.executable, "-c", "raise SystemExit(3)")


def test_the_table_sets_each_round_against_its_floor() -> None:
    floor = [Start(1.0, 0.5), Start(2.0, 0.6), Start(1.0, 0.7)]
    server = [
        Start(3.0, 3.0, 2**20, 0.4, 0.02),
        Start(4.0, 4.0, 2**21, 0.5, 0.03),
        Start(5.0, 5.0, 2**22, 0.6, 0.01),
    ]
    *_, first, second = report({"floor": floor, "server": server}, "floor").splitlines()
    assert first == "| floor | 1.00 | 0.60 |  |  |  | 1.00 (1.00 to 1.00) |"
    assert second == "| server | 4.00 | 4.00 | 2 | 500 | 20 | 3.00 (2.00 to 5.00) |"
