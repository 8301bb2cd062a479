from pathlib import Path

from app.client.watch.claims import Claims, identity
from app.client.watch.folder import OWN, PATTERNS, Found, Stamp


def found(root: Path, name: str, content: bytes = b"x") -> Found:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return Found(name, path, Stamp.of(path.stat()), 1.0)


def test_a_folder_keeps_what_tells_it_from_others(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = identity(tmp_path / "a")
    assert len(first) == 32
    assert identity(tmp_path / "a") == first
    assert identity(tmp_path / "b") != first


def test_what_is_taken_is_out_of_the_cameras_reach(tmp_path: Path) -> None:
    claims = Claims(tmp_path, PATTERNS, 0.01)
    [taken], waiting = claims.take_all([found(tmp_path, "sub/a.png", b"one")])
    assert (taken.name, waiting) == ("sub/a.png", 0)
    found(tmp_path, "sub/a.png", b"two")
    assert taken.path.read_bytes() == b"one"
    assert taken.path.is_relative_to(tmp_path / OWN)


def test_a_name_that_is_taken_waits(tmp_path: Path) -> None:
    claims = Claims(tmp_path, PATTERNS, 1000)
    claims.take_all([found(tmp_path, "a.png", b"one")])
    second = found(tmp_path, "a.png", b"two")
    assert claims.take_all([second]) == ([], 2)  # the first has not settled, the second waits for it
    assert second.path.read_bytes() == b"two"


def test_what_was_taken_outlasts_the_process(tmp_path: Path) -> None:
    Claims(tmp_path, PATTERNS, 0.0).take_all([found(tmp_path, "a.png")])
    [again], waiting = Claims(tmp_path, PATTERNS, 0.0).take_all([])
    assert (again.name, waiting) == ("a.png", 0)


def test_what_is_gone_or_written_to_is_not_given(tmp_path: Path) -> None:
    claims = Claims(tmp_path, PATTERNS, 1000)
    gone, grown = found(tmp_path, "gone.png"), found(tmp_path, "grown.png")
    gone.path.unlink()
    with grown.path.open("ab") as file:
        file.write(b"more")
        file.flush()
        assert claims.take_all([gone, grown]) == ([], 2)
        file.write(b"and more")  # to the file that was taken: it settles there
    assert (tmp_path / OWN / "taken" / "grown.png").read_bytes() == b"xmoreand more"


def test_empty_folders_are_removed(tmp_path: Path) -> None:
    claims = Claims(tmp_path, PATTERNS, 1.0)
    whole, _ = claims.take_all([found(tmp_path, "day1/cam/a.png"), found(tmp_path, "day1/b.png")])
    whole[0].path.unlink()
    claims.tidy(whole[0])
    assert not whole[0].path.parent.exists()
    assert whole[1].path.exists()
    whole[1].path.unlink()
    claims.tidy(whole[1])
    assert (tmp_path / OWN / "taken").exists()
    assert not (tmp_path / OWN / "taken" / "day1").exists()
