"""Files are read within limits and written whole; the bundle's own tests have every kind of damage."""

import hashlib
import os
from pathlib import Path

import pytest

from flows.fastflow.plain_files import (
    FileError,
    escaped,
    file_hashes,
    read_file,
    remove_directory,
    replace_file,
    sha256_of,
    sizes,
)


class TestRead:
    @pytest.mark.parametrize("size", [0, 1, 9, 10])
    def test_up_to_the_limit(self, tmp_path: Path, size: int) -> None:
        (tmp_path / "f").write_bytes(b"x" * size)
        assert read_file(tmp_path / "f", 10) == b"x" * size
        assert sha256_of(tmp_path / "f", 10) == hashlib.sha256(b"x" * size).hexdigest()

    def test_a_limit_takes_no_memory(self, tmp_path: Path) -> None:
        (tmp_path / "f").write_bytes(b"x")
        assert read_file(tmp_path / "f", 2**60) == b"x"

    def test_not_beyond(self, tmp_path: Path) -> None:
        (tmp_path / "f").write_bytes(b"x" * 11)
        for read in (read_file, sha256_of):
            with pytest.raises(FileError, match=r"f is larger than 10 bytes"):
                read(tmp_path / "f", 10)

    def test_a_file_that_claims_to_be_empty_and_is_not(self) -> None:
        """As those of /proc do: the limit holds for what comes."""
        claims = Path("/proc/self/status")
        assert claims.stat().st_size == 0
        assert len(read_file(claims, 100_000)) > 100
        with pytest.raises(FileError, match="is larger than 100 bytes"):
            read_file(claims, 100)

    def test_nothing(self, tmp_path: Path) -> None:
        for read in (read_file, sha256_of):
            with pytest.raises(FileNotFoundError):
                read(tmp_path / "f", 10)

    @pytest.mark.parametrize("what", ["/dev/zero", "/dev/full", "/"])
    def test_what_is_no_file(self, what: str) -> None:
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        for read in (read_file, sha256_of):
            with pytest.raises(FileError, match="is no regular file"):
                read(Path(what), 10)
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208

    def test_a_link_to_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "f").touch()
        (tmp_path / "l").symlink_to(tmp_path / "f")
        with pytest.raises(FileError, match="l is a link"):
            read_file(tmp_path / "l", 10)


def test_sizes_are_of_all_files_below(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(b"123")
    (tmp_path / "d").touch()
    assert sizes(tmp_path, 4) == {"a/b/c": 3, "d": 0}
    with pytest.raises(FileError, match="more than 3 files"):
        sizes(tmp_path, 3)


def test_of_files_that_cannot_be_hashed_all_are_named_up_to_twenty(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError) as raised:
        file_hashes([tmp_path / "gone", tmp_path / "a", tmp_path / "folder"])
    assert str(raised.value) == (
        f"2 of 3 files cannot be read:\n  {tmp_path}/gone: No such file or directory\n"
        f"  {tmp_path}/folder: Is a directory"
    )
    with pytest.raises(FileError, match=r"^22 of 22 files cannot be read") as raised:
        file_hashes([tmp_path / f"{i}" for i in range(22)])
    lines = str(raised.value).splitlines()
    assert len(lines) == 22
    assert lines[-2:] == [f"  {tmp_path}/19: No such file or directory", "  and 2 more"]


class TestReplace:
    def test_the_old_file_or_the_new_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        replace_file(tmp_path / "f", b"old")
        replace_file(tmp_path / "f", b"new")
        assert (tmp_path / "f").read_bytes() == b"new"

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "chmod", full)
        with pytest.raises(OSError, match="No space left"):
            replace_file(tmp_path / "f", b"newer")
        assert (tmp_path / "f").read_bytes() == b"new"
        assert [p.name for p in tmp_path.iterdir()] == ["f"]

    def test_a_directory_goes_whole(self, tmp_path: Path) -> None:
        (tmp_path / "d" / "e").mkdir(parents=True)
        (tmp_path / "d" / "e" / "f").touch()
        remove_directory(tmp_path / "d")
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(FileNotFoundError):
            remove_directory(tmp_path / "d")
        assert list(tmp_path.iterdir()) == []


def test_hashes_are_sha256_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_hashes([tmp_path / "abc", tmp_path / "empty"]) == [
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ]


def test_a_name_that_is_no_utf_8_can_be_printed() -> None:
    assert escaped("müll/prüf.png") == "müll/prüf.png"
    assert escaped(os.fsdecode(b"pr\xfcf.png")) == r"pr\xfcf.png"
