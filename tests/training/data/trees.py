"""Small file trees for tests of layouts."""

from pathlib import Path


def touch(root: Path, *names: str) -> None:
    """Make empty files, and the folders they lie in."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(root: Path, paths: list[Path]) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]
