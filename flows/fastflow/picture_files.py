"""Which files of a folder are its pictures."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from .images import IMAGE_SUFFIXES

_OVERLAY: Final = ".overlay.png"  # after the picture's whole name, as `predict` and `watch` write them


def is_picture(file: Path) -> bool:
    """Whether a file of a folder is one of its pictures, by its name and what lies beside it.

    Names that begin with a dot are an operating system's notes ("._000.png"), not pictures. Nor are
    FlowGauge's own overlays: "000.png.overlay.png" beside "000.png" or its answer "000.png.json".
    """
    if file.suffix.lower() not in IMAGE_SUFFIXES or file.name.startswith(".") or not file.is_file():
        return False
    shown = file.name.removesuffix(_OVERLAY)
    if shown == file.name or Path(shown).suffix.lower() not in IMAGE_SUFFIXES:
        return True
    return not (file.with_name(shown).is_file() or file.with_name(f"{shown}.json").is_file())


def _raise(error: OSError) -> None:
    raise error


def pictures_below(folder: Path, on_error: Callable[[OSError], object] = _raise) -> dict[str, Path]:
    """The pictures in a folder at any depth, but in hidden folders, by their names relative to it, sorted.

    Links to folders are followed. A folder that is reached in several ways is looked into once.

    Args:
        folder: to look in.
        on_error: called for each folder that cannot be read, which the error's `filename` tells.

    Raises:
        OSError: a folder cannot be read, where `on_error` is not given.
    """
    found: dict[Path, Path] = {}
    seen: set[tuple[int, int]] = set()  # links may lead in a circle
    for place, below, names in os.walk(folder, onerror=on_error, followlinks=True):
        here = Path(place)
        status = here.stat()
        identity = status.st_dev, status.st_ino
        if identity in seen:
            below.clear()
            continue
        seen.add(identity)
        # Links last: what a link leads to beside it goes by its own name.
        below[:] = sorted(
            (name for name in below if not name.startswith(".")),
            key=lambda name: ((here / name).is_symlink(), name),
        )
        found |= {file.relative_to(folder): file for file in map(here.joinpath, names) if is_picture(file)}
    return {name.as_posix(): found[name] for name in sorted(found)}
