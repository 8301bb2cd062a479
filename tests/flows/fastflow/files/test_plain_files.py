"""Files are read within limits; the bundle's own tests have every kind of damage."""

import hashlib
import os
from pathlib import Path

import pytest

from flows.fastflow.files.plain_files import (
    FileError,
    escape_name,
    file_hashes,
    file_sizes,
    read_file,
    sha256_of,
)


def test_files_are_read_up_to_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 10)
    assert read_file(path, 10) == b"x" * 10
    assert sha256_of(path, 10) == hashlib.sha256(b"x" * 10).hexdigest()
    for read in (read_file, sha256_of):
        with pytest.raises(FileError, match="f is larger than 9 bytes"):
            read(path, 9)
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "none", 10)


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "device"])
def test_only_regular_files_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "f"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to(__file__)
        case "device":
            path = Path("/dev/zero")
    for read in (read_file, sha256_of):
        with pytest.raises(FileError, match=r"is a link, not a file|is not a regular file"):
            read(path, 10**6)


def test_sizes_are_of_all_files_below(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(b"123")
    (tmp_path / "d").touch()
    assert file_sizes(tmp_path, 2) == {"a/b/c": 3, "d": 0}
    with pytest.raises(FileError, match="more than 1 files"):
        file_sizes(tmp_path, 1)


def test_hashes_of_files_and_names_of_those_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_hashes([tmp_path / "a"]) == [hashlib.sha256(b"abc").hexdigest()]
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError) as raised:
        file_hashes([tmp_path / "gone", tmp_path / "a", tmp_path / "folder"])
    assert str(raised.value) == (
        f"2 of 3 files cannot be read:\n  {tmp_path}/gone: No such file or directory\n"
        f"  {tmp_path}/folder: Is a directory"
    )
    with pytest.raises(FileError, match=r"^22 of 22 files cannot be read") as raised:
        file_hashes([tmp_path / f"{i}" for i in range(22)])
    assert str(raised.value).splitlines()[-1] == "  and 2 more"


def test_name_that_is_no_utf_8_can_be_printed() -> None:
    assert escape_name("müll/prüf.png") == "müll/prüf.png"
    assert escape_name(os.fsdecode(b"pr\xfcf.png")) == r"pr\xfcf.png"
