"""Watchers of one folder that would do something else with what is taken out of it."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.client import Client
from app.client.watch.folder import OWN
from app.client.watch.in_use import InUse, expect_unused
from app.client.watch.job import Job
from app.client.watch.watcher import Watcher
from tests.app.client.watch.conftest import Heard, ids, job, once

REFUSED = "a watcher with another --category, --station, --part or --move-to"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "camera" / OWN).mkdir(parents=True)
    return tmp_path / "camera"


@pytest.fixture
def first(root: Path, tmp_path: Path) -> Iterator[InUse]:
    use = InUse(Job(root, "top", "line-1", move_to=tmp_path / "out"))
    use.begin()
    yield use
    use.end()


@pytest.mark.parametrize(
    "other",
    [
        Job(Path(), "side", "line-1", move_to=Path("out")),
        Job(Path(), "top", "line-2", move_to=Path("out")),
        Job(Path(), "top", "line-1", re.compile("(x)"), move_to=Path("out")),
        Job(Path(), "top", "line-1", move_to=Path("elsewhere")),
    ],
    ids=["category", "station", "part", "target"],
)
def test_one_that_does_something_else_does_not_start(
    root: Path, tmp_path: Path, first: InUse, other: Job
) -> None:
    assert other.move_to is not None
    second = InUse(Job(root, other.category, other.station, other.part, tmp_path / other.move_to))
    for _ in range(2):
        with pytest.raises(OSError, match=REFUSED):
            second.begin()
    first.end()
    second.begin()
    second.end()
    assert list((root / OWN / "watchers").iterdir()) == []


def test_those_that_do_the_same_share_the_work(root: Path, tmp_path: Path, first: InUse) -> None:
    second = InUse(Job(root, "top", "line-1", move_to=tmp_path / "out", patterns=("*_b.png",)))
    second.begin()
    first.begin()
    second.end()


def test_one_that_moves_nothing_is_refused_beside_one_that_does(root: Path, first: InUse) -> None:
    """It would put back what the other one has taken."""
    with pytest.raises(OSError, match=REFUSED):
        expect_unused(root)
    first.end()
    expect_unused(root)


def test_one_that_was_killed_keeps_nobody_out(root: Path, tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from app.client.watch.in_use import InUse; "
        "from app.client.watch.job import Job; root, out = map(Path, sys.argv[1:]); "
        "use = InUse(Job(root, 'top', move_to=out)); use.begin(); print('begun', flush=True); time.sleep(60)"
    )
    other = InUse(Job(root, "side", move_to=tmp_path / "out"))
    with subprocess.Popen(
        [sys.executable, "-c", script, str(root), str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            with pytest.raises(OSError, match=REFUSED):
                other.begin()
        finally:
            process.kill()
    other.begin()
    other.end()


def test_what_is_wiped_meanwhile_is_told_again(root: Path, tmp_path: Path, first: InUse) -> None:
    shutil.rmtree(root / OWN)
    (root / OWN).mkdir()
    first.begin()
    with pytest.raises(OSError, match=REFUSED):
        InUse(Job(root, "side", move_to=tmp_path / "out")).begin()


def test_a_share_without_locks_keeps_nobody_out(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: InUse
) -> None:
    def lacks(*_: object, **__: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr("app.client.watch.in_use.FileLock.acquire", lacks)
    second = InUse(Job(root, "side", move_to=tmp_path / "out"))
    second.begin()
    second.end()


def test_watchers_of_two_models_on_one_folder(
    client: Client, folder: Path, tmp_path: Path, pictures: list[bytes]
) -> None:
    one = Watcher(client, job(folder, "top", move_to=tmp_path / "out"), Heard())
    with pytest.raises(OSError, match=REFUSED):
        Watcher(client, job(folder, "side", move_to=tmp_path / "out"), Heard())
    with pytest.raises(OSError, match=REFUSED):
        Watcher(client, job(folder, "side"), Heard())
    one._in_use.end()  # as when its process ends
    heard, complete = once(client, job(folder, "side", move_to=tmp_path / "out"))
    assert (complete, len(ids(heard))) == (True, len(pictures))
    heard, complete = once(client, job(folder, "top"))
    assert (complete, heard.outcomes) == (True, [])
