"""The bench of training time: what it measures of a process, and what it makes."""

import sys
from pathlib import Path

import pytest

from bench.training_time import Run, Stopwatch, make_pictures, measured
from flows.fastflow.images import read


def test_a_process_is_measured() -> None:
    program = (
        "import json; import time; held = bytearray(b'x') * 100_000_000; print('noise'); time.sleep(0.5)\n"
        "print(json.dumps({'epochs': [9.0, 1.0, 2.0, 3.0], 'cpu': [8.0, 2.0], 'caching': 0.5}))\n"
    )
    run = measured([sys.executable, "-c", program], threads=1)
    assert (run.epoch, run.epoch_cpu, run.caching) == (2.0, 2.0, 0.5)
    assert 100e6 < run.memory < 1e9


def test_a_process_that_fails_ends_the_bench() -> None:
    with pytest.raises(SystemExit, match="failed"):
        measured([sys.executable, "-c", "raise SystemExit(3)"], threads=1)


def test_the_first_epoch_does_not_count() -> None:
    assert Run([50.0, 1.0, 3.0], [40.0, 5.0, 7.0], caching=0, memory=1).epoch == 2.0
    assert Run([50.0, 1.0, 3.0], [40.0, 5.0, 7.0], caching=0, memory=1).epoch_cpu == 6.0


def test_epochs_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    watch = Stopwatch()
    watch.say("epochs are not begun")
    with watch.stage("fit", 2) as advance:
        advance(1)
        for line in ("epoch   1/2", "a note", "epoch   2/2"):
            watch.say(line)
    wall, cpu = watch.epochs()
    assert len(wall) == len(cpu) == 3
    assert list(wall) == sorted(wall)
    assert watch.seconds["fit"] >= wall[-1] - wall[0]
    assert capsys.readouterr().out == ""


def test_pictures_are_made_once_and_again_for_another_number(tmp_path: Path) -> None:
    make_pictures(tmp_path / "good", 2)
    first = sorted((tmp_path / "good").iterdir())
    assert len(first) == 3  # one more, to be held out
    assert read(first[0]).shape == (256, 256, 3)
    before = first[0].stat().st_mtime_ns
    make_pictures(tmp_path / "good", 2)
    assert first[0].stat().st_mtime_ns == before
    make_pictures(tmp_path / "good", 1)
    assert len(list((tmp_path / "good").iterdir())) == 2
