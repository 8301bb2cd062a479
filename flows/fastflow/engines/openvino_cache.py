"""The folder in which converted backbones and compiled graphs are kept from start to start.

Another version of OpenVINO finds nothing of what this one kept, so each has a folder of its own within it.
"""

import logging
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import openvino as ov

from flows.fastflow.plain_files import remove_directory, sweep, temporary_directory

logger = logging.getLogger("flowgauge.openvino")

_PREFIX: Final = "openvino-"
_OF_A_VERSION: Final = re.compile(rf"{_PREFIX}\d{{4}}\.\d.*")
_SUFFIXES: Final = ("xml", "bin", "blob", "safetensors")
_UNUSED_SECONDS: Final = 90 * 24 * 3600


def opened(folder: Path | None) -> Path | None:
    """Where to keep what this version compiles, made if need be.

    What other versions kept, and no start has used for 90 days, is deleted.

    Args:
        folder: of all versions; nothing else in it is touched.

    Returns:
        A folder in it. None, and a word in the log, where nothing can be kept there.
    """
    if folder is None:
        return None
    place = of_this_version(folder)
    try:
        with temporary_directory(place):  # which tells by the folder's time that it is in use
            sweep(place)  # what killed conversions left
        sweep(folder)  # and what a killed deletion did
    except OSError as error:
        logger.warning("compiled models cannot be kept in %s (%s): each start compiles them", folder, error)
        return None
    _discard_unused(folder)
    return place


def of_this_version(folder: Path) -> Path:
    """Where `opened` keeps things."""
    return folder / f"{_PREFIX}{re.sub(r'[^0-9A-Za-z.]+', '-', ov.__version__)}"


def clear(place: Path) -> None:
    """Delete all that was kept in what `opened` gave."""
    for suffix in _SUFFIXES:
        for path in place.glob(f"*.{suffix}"):
            with suppress(OSError):  # another server's, or already gone
                path.unlink()


def blobs(place: Path) -> frozenset[str]:
    """Names of the compiled graphs that are kept there."""
    return frozenset(path.name for path in place.glob("*.blob"))


def warn_of_none_kept(place: Path) -> None:
    """Say that what was just compiled is not kept, and how much room there is."""
    free = shutil.disk_usage(place).free // 2**20
    logger.warning(
        "a compiled backbone could not be kept in %s (%d MiB free): each start compiles it", place, free
    )


def _discard_unused(folder: Path) -> None:
    oldest = time.time() - _UNUSED_SECONDS
    for path in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # somebody else's, or gone meanwhile: in nobody's way
            if path.stat().st_mtime < oldest and _is_ours(path):
                remove_directory(path)
                logger.info("deleted %s: no start has used it for 90 days", path)


def _is_ours(path: Path) -> bool:
    """Whether it can only be what a version kept: the folder may have been somebody's before."""
    if not _OF_A_VERSION.fullmatch(path.name) or path.is_symlink() or not path.is_dir():
        return False
    known = {f".{suffix}" for suffix in (*_SUFFIXES, "part")}
    return all(one.suffix in known and not one.is_symlink() for one in path.iterdir())
