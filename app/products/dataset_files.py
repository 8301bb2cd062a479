"""Files of datasets: images under their SHA-256, and thumbnails."""

import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.fastflow.files.atomic_files import replace_file

logger = logging.getLogger("flowgauge.products")


class DatasetFiles:
    """The files of all datasets, in the history's folder.

        products/<product>/<sha256>.<suffix>    the bytes of an upload
        products/.changing/                     marks of files that get or lose their row
        thumbnails/<product>/<sha256>.jpg       drawn again if they are missing

    A file is written under a temporary name and renamed, so it is complete or absent. It exists before its
    row is added and until its row is deleted. A mark shows that one of both is under way, so that a start
    after a kill finds the file without a row and need not search all files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "products"
        self._thumbnails = folder / "thumbnails"
        self._changing = self.folder / ".changing"

    def open(self, has_row: Callable[[str, str], bool]) -> None:
        """Create the folders, and delete what a killed process left.

        Args:
            has_row: tells by product and file name if an image has a row; of the product itself for "".
        """
        self._changing.mkdir(parents=True, exist_ok=True)
        for folder in (self.folder, self._thumbnails):
            for part in folder.glob("*/.*.part"):
                shutil.rmtree(part, ignore_errors=True)
        for mark in self._changing.iterdir():
            product, _, name = mark.name.partition(".")
            if not has_row(product, name):
                logger.info("an interrupted change left %s: deleted", mark.name)
                self.remove(product, name)
            mark.unlink()

    @contextmanager
    def changing(self, product: str, name: str = "") -> Iterator[None]:
        """Mark a file, or all of a product, while its row is added or deleted.

        After an error the mark stays, because the row may or may not exist.
        """
        mark = self._changing / f"{product}.{name}"
        mark.touch()
        yield
        mark.unlink(missing_ok=True)

    def path(self, product: str, name: str) -> Path:
        return self.folder / product / name

    def write(self, product: str, name: str, data: bytes) -> None:
        """Write an image so that it survives a loss of power.

        Raises:
            OSError: the disk is full. No unfinished file is left.
        """
        replace_file(self.path(product, name), data, sync=True)

    def read(self, product: str, name: str) -> bytes | None:
        """Read an image; None if it is missing or changed."""
        try:
            data = self.path(product, name).read_bytes()
        except OSError:
            logger.exception("the image %s of product %s cannot be read", name, product)
            return None
        return data if hashlib.sha256(data).hexdigest() == name.partition(".")[0] else None

    def remove(self, product: str, name: str = "") -> None:
        """Delete an image, or all files of a product, with the thumbnails."""
        if name:
            self.path(product, name).unlink(missing_ok=True)
            self._thumbnail(product, name).unlink(missing_ok=True)
        else:
            for folder in (self.folder, self._thumbnails):
                shutil.rmtree(folder / product, ignore_errors=True)

    def read_thumbnail(self, product: str, name: str) -> bytes | None:
        """Read an image's thumbnail; None if there is none."""
        try:
            return self._thumbnail(product, name).read_bytes()
        except OSError:
            return None

    def write_thumbnail(self, product: str, name: str, data: bytes) -> None:
        """Write an image's thumbnail; without room on the disk it is drawn again when needed."""
        try:
            replace_file(self._thumbnail(product, name), data, sync=False)
        except OSError:
            logger.warning("the thumbnail of %s cannot be kept", name, exc_info=True)

    def _thumbnail(self, product: str, name: str) -> Path:
        return self._thumbnails / product / f"{name.partition('.')[0]}.jpg"
