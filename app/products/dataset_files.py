"""Files of datasets: images under their SHA-256, and thumbnails."""

import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Row

from app.products.rows import file_name
from app.storage.folder_store import FolderStore
from app.storage.parallel import for_each
from app.storage.store import Store, StoreUnavailable
from flows.fastflow.files.atomic_files import link_or_copy, replace_file

logger = logging.getLogger("flowgauge.products")


class DatasetFiles:
    """The files of all datasets, in the history's folder; the images may be in a store that servers share.

        products/<product>/<sha256>.<suffix>    the bytes of an upload
        products/.changing/                     marks of files that get or lose their row
        thumbnails/<product>/<sha256>.jpg       drawn again if they are missing

    A file is complete or absent. It exists before its row is added and until its row is deleted. A mark shows
    that one of both is under way, so that a start after a kill finds the file without a row and need not
    search all files.

    Raises:
        StoreUnavailable: from each method that needs an image, if the store does not answer.
    """

    def __init__(self, folder: Path, store: Store | None = None) -> None:
        self.folder = folder / "products"
        self._store = store or FolderStore(folder, sync=True)
        self._thumbnails = folder / "thumbnails"
        self._changing = self.folder / ".changing"

    def open(self, has_row: Callable[[str, str], bool]) -> None:
        """Create the folders, and delete what a killed process or products deleted elsewhere left.

        Args:
            has_row: tells by product and file name if an image has a row; of the product itself for "".
        """
        self._changing.mkdir(parents=True, exist_ok=True)
        if self.disk is not None:
            self.disk.mkdir(parents=True, exist_ok=True)
        for folder in (self.folder, self._thumbnails):
            for part in folder.glob("*/.*.part"):
                shutil.rmtree(part, ignore_errors=True)
        for mark in self._changing.iterdir():
            product, _, name = mark.name.partition(".")
            if not has_row(product, name):
                logger.info("an interrupted change left %s: deleted", mark.name)
                self.remove(product, name)
            mark.unlink()
        for folder in self._thumbnails.glob("*/"):
            if not has_row(folder.name, ""):
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def changing(self, product: str, name: str = "") -> Iterator[None]:
        """Mark a file, or all of a product, while its row is added or deleted.

        After an error the mark stays, because the row may or may not exist.
        """
        mark = self._changing / f"{product}.{name}"
        mark.touch()
        yield
        mark.unlink(missing_ok=True)

    @property
    def disk(self) -> Path | None:
        """The folder that has the images; None if they are not in one."""
        return None if self._store.folder is None else self._store.folder / "products"

    def path(self, product: str, name: str) -> Path:
        """Return the path of an image, which is in a folder."""
        if self.disk is None:
            raise RuntimeError("the images are in no folder")
        return self.disk / product / name

    def write(self, product: str, name: str, data: bytes) -> None:
        """Write an image so that it survives a loss of power.

        Raises:
            OSError: the disk is full. No unfinished file is left.
        """
        self._store.write(_name(product, name), data)

    def read(self, product: str, name: str) -> bytes | None:
        """Read an image; None if it is missing or changed."""
        try:
            data = self._store.read(_name(product, name))
        except StoreUnavailable:
            raise
        except OSError:
            logger.exception("the image %s of product %s cannot be read", name, product)
            return None
        return data if hashlib.sha256(data).hexdigest() == name.partition(".")[0] else None

    def provide(self, product: str, images: Mapping[Path, Row[Any]]) -> Row[Any] | None:
        """Make hard links to images, or copies.

        Args:
            images: rows of the images, by the file to make.

        Returns:
            An image that is missing or cut off; None if all files are made.
        """
        made = for_each(self._store, lambda target: self._provide(product, images[target], target), images)
        return next((row for row, is_made in zip(images.values(), made, strict=True) if not is_made), None)

    def remove(self, product: str, name: str = "") -> None:
        """Delete an image, or all files of a product, with the thumbnails."""
        if name:
            self._store.delete(_name(product, name))
            self._thumbnail(product, name).unlink(missing_ok=True)
            return
        shutil.rmtree(self._thumbnails / product, ignore_errors=True)
        if self.disk is None:
            for_each(self._store, self._store.delete, self._store.list(_name(product)))
        else:
            shutil.rmtree(self.disk / product, ignore_errors=True)

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

    def _provide(self, product: str, image: Row[Any], target: Path) -> bool:
        name = file_name(image)
        if self.disk is None:
            data = self.read(product, name)
            if data is not None:
                target.write_bytes(data)
            return data is not None
        source = self.path(product, name)
        if not source.is_file() or source.stat().st_size != image.bytes:
            return False
        link_or_copy(source, target)
        return True

    def _thumbnail(self, product: str, name: str) -> Path:
        return self._thumbnails / product / f"{name.partition('.')[0]}.jpg"


def _name(*parts: str) -> str:
    return "/".join(("products", *parts))
