from pathlib import Path

import pytest

from app.registry.file_cache import DamagedFileError, FileCache


def get(cache: FileCache[int], path: Path) -> int | None:
    return cache.get(path, lambda path: int(path.read_text()), path.parent)


def test_file_is_parsed_again_only_after_a_change(tmp_path: Path) -> None:
    path, cache, parsed = tmp_path / "number", FileCache[int](), []

    def parse(path: Path) -> int:
        parsed.append(path)
        return int(path.read_text())

    assert cache.get(path, parse, tmp_path) is None
    path.write_text("1")
    assert [cache.get(path, parse, tmp_path) for _ in range(3)] == [1, 1, 1]
    assert len(parsed) == 1
    path.write_text("2")
    assert cache.get(path, parse, tmp_path) == 2
    path.unlink()
    assert cache.get(path, parse, tmp_path) is None


def test_damage_keeps_last_content_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, cache = tmp_path / "number", FileCache[int]()
    path.write_text("1")
    assert get(cache, path) == 1
    path.write_text("one")
    assert [get(cache, path) for _ in range(3)] == [1, 1, 1]
    [record] = caplog.records
    assert (record.levelname, str(path) in record.getMessage()) == ("ERROR", True)
    path.write_text("3")
    assert get(cache, path) == 3


def test_damage_without_previous_content_is_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, cache = tmp_path / "number", FileCache[int]()
    path.write_text("one")
    for _ in range(2):
        with pytest.raises(DamagedFileError):
            get(cache, path)
    assert len(caplog.records) == 1


def test_missing_folder_is_not_a_missing_file(tmp_path: Path) -> None:
    folder, cache = tmp_path / "share", FileCache[int]()
    folder.mkdir()
    (folder / "number").write_text("1")
    assert get(cache, folder / "number") == 1
    folder.rename(tmp_path / "away")
    assert get(cache, folder / "number") == 1
    with pytest.raises(DamagedFileError):
        get(FileCache[int](), folder / "number")
