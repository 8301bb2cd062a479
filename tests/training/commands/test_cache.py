"""`flowgauge data cache`: lists cached features, and takes their room back."""

import os
from pathlib import Path

from typer.testing import CliRunner, Result

import flowgauge
from training.cache_folder import GIB, CacheFolder


def run(runs: Path, *options: str) -> Result:
    return CliRunner().invoke(flowgauge.app, ["data", "cache", "--runs", str(runs), *options])


def filled(runs: Path) -> CacheFolder:
    """Two caches of a quarter of a GiB each, of which `old` was used first; their files are sparse."""
    caches = CacheFolder(runs / "features", GIB)

    def make(folder: Path) -> None:
        with (folder / "scale_0.npy").open("wb") as file:
            file.truncate(GIB // 4)

    for age, name in enumerate(("new", "old")):
        with caches.use(name, 0, make):
            pass
        os.utime(caches.folder / name, (1_000_000 - age,) * 2)
    return caches


def test_it_lists_the_least_recently_used_first(tmp_path: Path) -> None:
    caches = filled(tmp_path)
    with caches.use("new", 0, lambda _: None):
        lines = run(tmp_path).stdout.splitlines()
    assert lines[0].startswith(f"   0.250 GiB  {tmp_path}/features/old  last used 1970-01-1")
    assert lines[1].startswith(f"   0.250 GiB  {tmp_path}/features/new  last used ")
    assert [line.endswith(", in use") for line in lines] == [False, True, False]
    assert lines[2] == f"   0.500 GiB in {tmp_path}/features, caches: 2"


def test_it_removes_only_what_is_asked_for(tmp_path: Path) -> None:
    caches = filled(tmp_path)
    assert run(tmp_path, "--keep", "0.5").stdout.splitlines()[-1].endswith(f"in {caches.folder}, caches: 2")
    result = run(tmp_path, "--keep", "0.3")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "   0.250 GiB removed, caches: 1"
    assert [entry.path.name for entry in caches.entries()] == ["new"]
    assert run(tmp_path, "--keep", "0").exit_code == 0
    assert caches.entries() == []


def test_where_nothing_is_cached_it_says_so(tmp_path: Path) -> None:
    for options in ([], ["--keep", "1"]):
        result = run(tmp_path / "none", *options)
        assert result.exit_code == 0
        assert result.stdout == f"   0.000 GiB in {tmp_path}/none/features, caches: 0\n"
    assert not (tmp_path / "none").exists()


def test_less_than_nothing_cannot_be_kept(tmp_path: Path) -> None:
    assert run(tmp_path, "--keep", "-1").exit_code == 2
