"""Watchers of one folder that would do something else with what is taken out of it."""

import errno
import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.client import Client
from app.client.watch.folder import OWN
from app.client.watch.in_use import InUse
from app.client.watch.job import Job
from app.client.watch.watcher import Watcher
from tests.app.client.watch.conftest import Heard, ids, job, once

REFUSED = "another watcher is at work in this folder"
SERVER = "http://server:8000"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "camera" / OWN).mkdir(parents=True)
    return tmp_path / "camera"


def locks(root: Path) -> list[str]:
    return sorted(path.name for path in (root / OWN / "watchers").iterdir())


@pytest.fixture
def first(root: Path, tmp_path: Path) -> Iterator[InUse]:
    use = InUse(Job(root, "top", "line-1", move_to=tmp_path / "out"), SERVER)
    use.begin()
    yield use
    use.end()


@pytest.mark.parametrize(
    ("category", "station", "part", "server"),
    [
        ("side", "line-1", None, SERVER),
        ("top", "line-2", None, SERVER),
        ("top", "line-1", re.compile("(x)"), SERVER),
        ("top", "line-1", None, "http://trial:8000"),
    ],
    ids=["category", "station", "part", "server"],
)
def test_one_that_does_something_else_does_not_start(
    root: Path,
    tmp_path: Path,
    first: InUse,
    category: str,
    station: str,
    part: re.Pattern[str] | None,
    server: str,
) -> None:
    second = InUse(Job(root, category, station, part, tmp_path / "out"), server)
    for _ in range(2):
        with pytest.raises(OSError, match=REFUSED):
            second.begin()
    assert len(locks(root)) == 1
    first.end()
    second.begin()
    second.end()
    assert locks(root) == []


def test_those_that_do_the_same_share_the_work(root: Path, tmp_path: Path, first: InUse) -> None:
    """From another machine, which has the same share elsewhere."""
    second = InUse(Job(root, "top", "line-1", move_to=tmp_path / "elsewhere", patterns=("*_b.png",)), SERVER)
    second.begin()
    first.begin()
    assert len(locks(root)) == 2
    second.end()


@pytest.mark.parametrize("moves_first", [True, False])
def test_one_that_moves_and_one_that_does_not(root: Path, tmp_path: Path, moves_first: bool) -> None:
    """The one takes what the other would leave; the other would put back what the one has taken."""
    uses = [InUse(Job(root, "top", move_to=target), SERVER) for target in (tmp_path / "out", None)]
    one, other = uses if moves_first else reversed(uses)
    one.begin()
    with pytest.raises(OSError, match=REFUSED):
        other.begin()
    one.end()
    other.begin()
    other.end()


def test_those_that_move_nothing_may_look_for_names_of_their_own(root: Path) -> None:
    uses = [InUse(Job(root, category, patterns=(f"*_{category}.png",)), SERVER) for category in ("a", "b")]
    for use in uses:
        use.begin()
    for use in uses:
        use.end()


def test_one_that_was_killed_keeps_nobody_out(root: Path, tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from app.client.watch.in_use import InUse; "
        "from app.client.watch.job import Job; root, out = map(Path, sys.argv[1:]); "
        "use = InUse(Job(root, 'top', move_to=out), ''); use.begin(); print('begun', flush=True); "
        "time.sleep(60)"
    )
    same = InUse(Job(root, "top", move_to=tmp_path / "out"), "")
    other = InUse(Job(root, "side", move_to=tmp_path / "out"), "")
    for next_one in (other, same):
        with subprocess.Popen(
            [sys.executable, "-c", script, str(root), str(tmp_path / "out")],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "begun\n"
                with pytest.raises(OSError, match=REFUSED):
                    other.begin()
            finally:
                process.kill()
        next_one.begin()
        assert len(locks(root)) == 1  # what it left is gone
        next_one.end()


def test_what_is_wiped_meanwhile_is_told_again(root: Path, tmp_path: Path, first: InUse) -> None:
    shutil.rmtree(root / OWN)
    (root / OWN).mkdir()
    first.begin()
    with pytest.raises(OSError, match=REFUSED):
        InUse(Job(root, "side", move_to=tmp_path / "out"), SERVER).begin()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_share_without_locks_keeps_nobody_out(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    tried = []

    def lacks(*_: object) -> None:
        tried.append(number)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", lacks)
    uses = [InUse(Job(root, name, move_to=tmp_path / "out"), SERVER) for name in ("top", "side")]
    for use in uses:
        use.begin()
    before = len(tried)
    for _ in range(3):
        for use in uses:
            use.begin()
    assert len(tried) == before > 0  # nobody tries again all the time
    assert locks(root) == []
    for use in uses:
        use.end()


def test_on_a_full_disk_others_are_found_and_oneself_is_told_later(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: InUse
) -> None:
    same = InUse(Job(root, "top", "line-1", move_to=tmp_path / "out"), SERVER)
    other = InUse(Job(root, "side", "line-1", move_to=tmp_path / "out"), SERVER)
    opens = os.open

    def full(path: Any, flags: int, *how: Any, **more: Any) -> int:
        if flags & os.O_CREAT and not Path(path).exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return opens(path, flags, *how, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", full)
        same.begin()
        with pytest.raises(OSError, match=REFUSED):
            other.begin()
    assert len(locks(root)) == 1
    same.begin()
    assert len(locks(root)) == 2
    same.end()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EPERM])
def test_where_not_even_the_folder_of_locks_can_be_made_it_works_all_the_same(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """That of another user, or on a full disk that this one may empty."""

    def fails(path: Path, *_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number), str(path))

    use = InUse(Job(root, "top", move_to=tmp_path / "out"), SERVER)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", fails)
        use.begin()
        use.begin()
    use.begin()
    assert len(locks(root)) == 1
    use.end()


def test_a_share_that_fails_is_told(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: Any, *_: Any, **__: Any) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    use = InUse(Job(root, "top", move_to=tmp_path / "out"), SERVER)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fails)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            use.begin()
    use.begin()  # it was for a moment
    assert len(locks(root)) == 1
    use.end()


def test_a_share_that_goes_away_hinders_no_end(
    first: InUse, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", away)
        first.end()
    first.begin()  # it is back
    assert len(locks(root)) == 1


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
