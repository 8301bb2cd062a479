"""A folder of caches: whole or not there, bounded, and never one removed that is in use."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from training.cache_folder import CacheError, CacheFolder, DiskSpaceError, Entry


def of(nbytes: int) -> Callable[[Path], None]:
    """A cache of so many bytes."""

    def make(folder: Path) -> None:
        assert [path.suffix for path in folder.iterdir()] == [".lock"]
        (folder / "values").write_bytes(b"x" * nbytes)

    return make


def never(folder: Path) -> None:
    raise AssertionError(f"{folder} is made though it is there")


@pytest.fixture
def caches(tmp_path: Path) -> CacheFolder:
    return CacheFolder(tmp_path / "caches", 100)


def fill(caches: CacheFolder, **sizes: int) -> None:
    """Caches of these sizes, used in this order, the first ten seconds before the second."""
    for age, (name, nbytes) in enumerate(reversed(sizes.items())):
        with caches.use(name, nbytes, of(nbytes)):
            pass
        os.utime(caches.folder / name, (10_000 - 10 * age,) * 2)


def names(caches: CacheFolder) -> list[str]:
    return [entry.path.name for entry in caches.entries()]


def files(caches: CacheFolder) -> list[str]:
    """All that lies there."""
    return sorted(str(path.relative_to(caches.folder)) for path in caches.folder.rglob("*"))


def test_a_cache_is_made_once(caches: CacheFolder) -> None:
    assert not caches.has("a")
    for make in (of(7), never):
        with caches.use("a", 7, make) as folder:
            assert (folder / "values").read_bytes() == b"x" * 7
    assert caches.has("a")
    assert files(caches) == ["a", "a/values"]


def test_entries_say_what_there_is_the_least_recently_used_first(caches: CacheFolder) -> None:
    assert caches.entries() == []
    fill(caches, a=10, b=20)
    assert caches.entries() == [
        Entry(caches.folder / "a", 10, 9_990.0, in_use=False),
        Entry(caches.folder / "b", 20, 10_000.0, in_use=False),
    ]
    with caches.use("a", 10, never):
        assert [(e.path.name, e.in_use) for e in caches.entries()] == [("b", False), ("a", True)]
    assert names(caches) == ["b", "a"]


def test_the_least_recently_used_makes_room(caches: CacheFolder) -> None:
    fill(caches, a=40, b=30, c=30)
    fill(caches, d=35)
    assert sorted(names(caches)) == ["b", "c", "d"]


def test_no_more_is_removed_than_must_be(caches: CacheFolder) -> None:
    fill(caches, a=40, b=30)
    with caches.use("c", 30, of(30)):
        pass
    assert sorted(names(caches)) == ["a", "b", "c"]


def test_one_in_use_is_never_removed(caches: CacheFolder) -> None:
    fill(caches, a=40, b=30, c=30)
    with caches.use("a", 40, never) as folder:
        os.utime(folder, (0, 0))
        with caches.use("d", 60, of(60)):
            assert sorted(names(caches)) == ["a", "d"]
        assert caches.prune(0)
        assert names(caches) == ["a"]
    assert [entry.path.name for entry in caches.prune(0)] == ["a"]
    assert files(caches) == []


def test_one_used_by_another_process_is_never_removed(caches: CacheFolder) -> None:
    fill(caches, a=40)
    program = (
        "import pathlib, sys; from training.cache_folder import CacheFolder\n"
        "with CacheFolder(pathlib.Path(sys.argv[1]), 100).use('a', 40, None):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(caches.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        assert caches.prune(0) == []
        child.kill()
        child.wait()
    # The system has let go of what the killed process held.
    assert len(caches.prune(0)) == 1


def test_a_cache_is_looked_for_and_held_while_nobody_removes_any(caches: CacheFolder) -> None:
    """Otherwise one that was there might be gone before it is held, and room be taken twice."""
    fill(caches, a=40)
    found = []

    def use() -> None:
        for name, make in (("a", never), ("b", of(40))):
            with caches.use(name, 40, make) as folder:
                found.append(folder.name)

    user = threading.Thread(target=use)
    with caches._alone():
        user.start()
        user.join(0.3)
        assert files(caches) == ["a", "a/values"]
    user.join(60)
    assert found == ["a", "b"]


def test_a_lock_has_no_name_any_more_when_it_is_let_go(
    caches: CacheFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Free and with a name, it would look as if it were left by a killed process."""
    named = []

    class Watched(FileLock):
        def release(self, force: bool = False) -> None:
            if self.is_locked and Path(self.lock_file).parent.parent == caches.folder:
                named.append(Path(self.lock_file).exists())
            super().release(force)

    monkeypatch.setattr("training.cache_folder.FileLock", Watched)
    with caches.use("a", 40, of(40)):
        pass
    assert named == [False, False]  # of who makes it, and of who uses it


def test_a_kill_while_a_cache_is_removed_leaves_no_half_of_it(
    caches: CacheFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(caches, a=40)

    def killed(folder: Path, **_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            caches.prune(0)
    assert not caches.has("a")
    assert caches.prune(0) == []
    assert files(caches) == []


def test_what_is_larger_than_all_may_be_is_refused_and_removes_nothing(caches: CacheFolder) -> None:
    fill(caches, a=40)
    with pytest.raises(CacheError, match=r"feature_cache\.max_gib allows"), caches.use("b", 101, never):
        pass
    assert files(caches) == ["a", "a/values"]


def test_a_full_disk_is_told_after_room_was_made(
    caches: CacheFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(caches, a=40)
    full = shutil.disk_usage(caches.folder)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with (
        pytest.raises(DiskSpaceError, match="--runs name a folder on a larger disk"),
        caches.use("b", 11, never),
    ):
        pass
    assert names(caches) == []


def test_what_others_make_just_now_counts(caches: CacheFolder) -> None:
    """Otherwise two runs at once would each find the room that is there once."""
    fill(caches, old=30, new=30)

    def meanwhile(folder: Path) -> None:
        (folder / "values").write_bytes(b"x" * 10)
        with caches.use("b", 50, of(50)):
            pass
        (folder / "values").write_bytes(b"x" * 40)

    with caches.use("a", 40, meanwhile):
        pass
    assert names(caches) == ["b", "a"]


def test_the_disk_that_others_will_fill_is_not_free(
    caches: CacheFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CacheFolder, "_free", lambda _: 60)

    def meanwhile(folder: Path) -> None:
        (folder / "values").write_bytes(b"x" * 10)
        with pytest.raises(DiskSpaceError), caches.use("b", 40, never):
            pass
        (folder / "values").write_bytes(b"x" * 40)
        with caches.use("b", 40, of(40)):
            pass

    with caches.use("a", 40, meanwhile):
        pass


def test_what_fails_or_is_interrupted_leaves_nothing(caches: CacheFolder) -> None:
    def fail(folder: Path) -> None:
        (folder / "values").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), caches.use("a", 10, fail):
        pass
    assert files(caches) == []


def test_what_killed_processes_left_of_any_cache_is_swept_but_not_what_is_being_made(
    caches: CacheFolder,
) -> None:
    fill(caches, a=10)
    orphan = caches.folder / ".other-x1.part"
    orphan.mkdir()
    (orphan / "values").write_bytes(b"half")
    (orphan / "left.lock").touch()

    def make(folder: Path) -> None:
        with caches.use("c", 10, of(10)):  # another run, meanwhile
            pass
        assert folder.is_dir()
        of(10)(folder)

    with caches.use("b", 10, make):
        pass
    assert sorted(names(caches)) == ["a", "b", "c"]
    assert not orphan.exists()
    assert not list(caches.folder.glob(".*"))


def test_pruning_sweeps_too(caches: CacheFolder) -> None:
    fill(caches, a=10)
    (caches.folder / ".other-x1.part").mkdir()
    assert caches.prune(10) == []
    assert files(caches) == ["a", "a/values"]
    assert CacheFolder(caches.folder / "none", 1).prune(0) == []


def test_what_can_be_given_back_is_what_nobody_uses(caches: CacheFolder) -> None:
    fill(caches, a=40, b=30)
    assert caches.evictable() == 70
    with caches.use("b", 30, never):
        assert caches.evictable() == 40
