"""The folder in which converted backbones and compiled graphs are kept from start to start."""

import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from flows.fastflow.plain_files import sweep, temporary_directory

logger = logging.getLogger("flowgauge.openvino")

_SUFFIXES: Final = ("xml", "bin", "blob")
# Neither written nor read for so long: of other weights, another version or another processor. What is
# deleted too early is made anew.
_UNUSED_SECONDS: Final = 90 * 24 * 3600


def opened(folder: Path | None) -> Path | None:
    """The folder, made if need be, and rid of what nobody uses any more.

    None, and a word in the log, where nothing can be kept in it.
    """
    if folder is None:
        return None
    try:
        with temporary_directory(folder):
            sweep(folder)  # what killed conversions left
            _discard_unused(folder)
            return folder
    except OSError as error:
        logger.warning("compiled models cannot be kept in %s (%s): each start compiles them", folder, error)
        return None


def clear(folder: Path) -> None:
    """Delete all that is kept."""
    for path in _kept(folder):
        with suppress(OSError):  # another server's, or already gone
            path.unlink()


def _discard_unused(folder: Path) -> None:
    oldest = time.time() - _UNUSED_SECONDS
    for path in _kept(folder):
        with suppress(OSError):
            status = path.stat()
            if max(status.st_atime, status.st_mtime) < oldest:
                path.unlink()


def _kept(folder: Path) -> Iterator[Path]:
    for suffix in _SUFFIXES:
        yield from folder.glob(f"*.{suffix}")
