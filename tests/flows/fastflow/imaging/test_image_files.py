from pathlib import Path

import pytest

from flows.fastflow.imaging.image_files import find_image_files, is_image_file
from tests.support.rights import without_roots_rights


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_which_files_of_a_folder_are_images(tmp_path: Path) -> None:
    touch(tmp_path, "a.PNG", "b.jpeg", "._a.png", "notes.txt", "png")
    (tmp_path / "folder.png").mkdir()
    assert sorted(f.name for f in tmp_path.iterdir() if is_image_file(f)) == ["a.PNG", "b.jpeg"]


def test_images_lie_at_any_depth_but_in_hidden_folders(tmp_path: Path) -> None:
    touch(tmp_path, "b/z.png", "b.png", "a/c/x.png", "a/c/x.txt", ".Trash/old.png", "a/.x/y.png")
    found = find_image_files(tmp_path)
    assert list(found.items()) == [(name, tmp_path / name) for name in ("a/c/x.png", "b/z.png", "b.png")]


@pytest.mark.parametrize("mode", [0, 0o644], ids=["closed", "listed but not entered"])
def test_folder_that_cannot_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    touch(tmp_path, "a/1.png", "locked/2.png", "locked/in/3.png", "m/4.png")
    (tmp_path / "locked").chmod(mode)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)  # what is above it may be root's alone
    errors: list[OSError] = []
    with without_roots_rights():
        assert list(find_image_files(Path(), errors.append)) == ["a/1.png", "m/4.png"]
        with pytest.raises(PermissionError, match="locked"):
            find_image_files(Path())
    (tmp_path / "locked").chmod(0o755)
    assert [Path(error.filename) for error in errors] == [Path("locked")]
