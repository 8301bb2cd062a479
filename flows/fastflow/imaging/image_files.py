"""Image files of a folder."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from flows.fastflow.imaging.image_formats import IMAGE_SUFFIXES

# Names of folders with defects of no kind.
DEFECT_FOLDERS: Final = (
    *("defect", "defects", "defective", "bad", "ng", "nok", "ko", "anomaly", "anomalous", "abnormal"),
)
_OVERLAY: Final = ".overlay.png"  # `predict` and `watch` append it to the image's name


def is_image_file(file: Path) -> bool:
    """Check by its name and its neighbours that a file is an image of its folder.

    Names that begin with a dot are files of the operating system ("._000.png"). FlowGauge's own overlays
    are excluded too: "000.png.overlay.png" beside "000.png" or its answer "000.png.json".
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
    """Find the images at any depth below a folder, by relative name, sorted.

    Hidden folders are skipped and links to folders are followed. A folder with several paths counts once,
    under its own name if that lies in `folder`.

    Args:
        folder: the folder to search.
        on_error: called for each folder that cannot be read, or that links to an unreadable place; the
            error's `filename` names the folder.

    Raises:
        OSError: a folder cannot be read and `on_error` is not given.
    """
    found: dict[Path, Path] = {}
    seen: set[tuple[int, int]] = set()  # links may form a cycle
    tops = [folder]
    for top in tops:  # links are appended, so they come after all real folders
        for place, below, names in os.walk(top, onerror=on_error):
            here = Path(place)
            shown = sorted(name for name in below if not name.startswith("."))
            below.clear()
            try:
                # The dot shows whether a folder can be entered; a Path would drop it.
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
