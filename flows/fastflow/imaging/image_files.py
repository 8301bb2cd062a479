"""Which files of a folder are its pictures."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from flows.fastflow.imaging.image_formats import IMAGE_SUFFIXES

_OVERLAY: Final = ".overlay.png"  # after the picture's whole name, as `predict` and `watch` write them


def is_image_file(file: Path) -> bool:
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


def find_image_files(folder: Path, on_error: Callable[[OSError], object] = _raise) -> dict[str, Path]:
    """The pictures in a folder at any depth, but in hidden folders, by their names relative to it, sorted.

    Links to folders are followed. A folder that is reached in several ways is looked into once, and goes by
    its own name where that lies in `folder`.

    Args:
        folder: to look in.
        on_error: called for each folder that cannot be read, or that holds a link to where nothing may be
            read; the error's `filename` tells the folder.

    Raises:
        OSError: a folder cannot be read, where `on_error` is not given.
    """
    found: dict[Path, Path] = {}
    seen: set[tuple[int, int]] = set()  # links may lead in a circle
    tops = [folder]
    for top in tops:  # links are added as they are met, and come after all real folders
        for place, below, names in os.walk(top, onerror=on_error):
            here = Path(place)
            shown = sorted(name for name in below if not name.startswith("."))
            below.clear()
            try:
                # A Path would drop the dot, by which a folder that may be listed but not entered is told.
                status = os.stat(f"{place}/.")  # noqa: PTH116
                identity = status.st_dev, status.st_ino
                if identity in seen:
                    continue
                seen.add(identity)
                below += shown
                tops += [here / name for name in shown if (here / name).is_symlink()]
                found |= {f.relative_to(folder): f for f in map(here.joinpath, names) if is_image_file(f)}
            except OSError as error:
                error.filename = place
                on_error(error)
    return {name.as_posix(): found[name] for name in sorted(found)}
