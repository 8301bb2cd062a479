"""Images of datasets: each a row in the database and a file beside the history."""

import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, and_, bindparam, delete, func, insert, select, update

from app.database import clock, locks
from app.database.engine import Database
from app.database.tables import product_images, products
from app.errors.problems import DISK_FULL, Problem, ProblemName
from app.products.dataset_files import DatasetFiles
from app.products.labels import edit_label, read_label
from app.products.rows import (
    IMAGES,
    ImageFilter,
    count_change,
    file_name,
    find_images,
    find_product,
    require_images,
    require_product,
)
from app.registry.free_disk import require_room_for_upload
from app.schemas.history import Verdict
from app.schemas.products import ImageFinding, ImageLabel, ImageSource, ItemStatus
from app.settings import Settings
from app.storage.urls import open_store


class RefusedImage(Problem):
    """An image that a dataset does not take, with its status in the answer."""

    def __init__(self, status: ItemStatus, name: ProblemName, detail: str) -> None:
        super().__init__(name, detail)
        self.item_status = status


class NewImage(NamedTuple):
    """A decoded image to store."""

    sha256: str
    suffix: str
    name: str
    width: int
    height: int
    data: bytes
    label: Verdict
    kind: str | None = None
    source: ImageSource = "upload"
    inspection_id: str | None = None
    part_id: str | None = None


class ImageStore:
    """The images of all products. All methods may block; threads may share an object.

    Raises:
        Problem: unknown-product from each method that gets a name; DatabaseUnavailable.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        store = open_store(settings.store) if settings.store else None
        self.files = DatasetFiles(settings.history.absolute(), store)
        self._lock = threading.Lock()
        self._database = database
        self._max_images = settings.product_images
        self._max_bytes = settings.product_bytes
        self._bytes = 0  # with SQLite, whose database has one server

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold, on all servers, what a product or a file needs to get or lose its row."""
        with self._lock, self._database.locked(locks.FILES, "products"):
            yield

    def open(self) -> None:
        """Create the folders, and undo interrupted changes of this server. The tables exist."""

        def has_row(product: str, name: str) -> bool:
            with self._database.read() as connection:
                if not name:
                    return find_product(connection, product) is not None
                return find_images(connection, product, [name.partition(".")[0]]) != {}

        with self.locked():
            self.files.open(has_row)
        with self._database.read() as connection:
            self._bytes = _sum_bytes(connection)

    def find(self, product: str, sha256: str) -> Row[Any]:
        with self._database.read() as connection:
            return require_images(connection, product, [sha256])[0]

    def page(
        self, product: str, where: ImageFilter, limit: int, before: int | None = None
    ) -> tuple[Sequence[Row[Any]], int]:
        """Return the latest matching images, below a number if one is given, and the number of all."""
        matching = and_(IMAGES.product == product, *where.conditions())
        query = select(product_images).where(matching).order_by(IMAGES.number.desc()).limit(limit)
        if before is not None:
            query = query.where(IMAGES.number < before)
        with self._database.read() as connection:
            require_product(connection, product)
            total = connection.scalar(select(func.count()).select_from(product_images).where(matching))
            return connection.execute(query).all(), total or 0

    def included(self, product: str) -> Sequence[Row[Any]]:
        """Return the images of a product that are not excluded, in the order of their SHA-256."""
        query = select(product_images).where(IMAGES.product == product, ~IMAGES.excluded)
        with self._database.read() as connection:
            require_product(connection, product)
            return connection.execute(query.order_by(IMAGES.sha256)).all()

    def add(self, product: str, new: NewImage) -> tuple[Row[Any], bool]:
        """Store an image: its file, then its row. Return the row, and False if the product had it before.

        Raises:
            RefusedImage: the dataset or the disk is full.
        """
        name = f"{new.sha256}.{new.suffix}"
        with self.locked():
            with self._database.read() as connection:
                if not self._database.is_sqlite:  # other servers add and delete images as well
                    self._bytes = _sum_bytes(connection)
                require_product(connection, product)
                if known := find_images(connection, product, [new.sha256]).get(new.sha256):
                    return known, False
                of_product = select(func.count()).select_from(product_images).where(IMAGES.product == product)
                self._require_room(connection.scalar(of_product) or 0, len(new.data))
            values = new._asdict() | {"product": product, "bytes": len(new.data), "excluded": False}
            del values["data"]
            try:
                if self.files.disk is not None:
                    require_room_for_upload(self.files.disk, len(new.data))
                with self.files.changing(product, name):
                    self.files.write(product, name, new.data)
                    with self._database.write() as connection:
                        count_change(connection, product)
                        added = insert(product_images).values(values | {"added_ms": clock.now_ms()})
                        row = connection.execute(added.returning(product_images)).one()
            except OSError as error:
                if error.errno not in DISK_FULL:
                    raise
                raise RefusedImage(
                    "full",
                    "too-large",
                    "The disk has no room for the image beside the reserve for inspections. Free some space.",
                ) from error
            self._bytes += len(new.data)
        return row, True

    def relabel(self, product: str, changes: Sequence[ImageLabel]) -> tuple[list[Row[Any]], list[ImageLabel]]:
        """Change labels of images, all or none; return the images, and their labels before.

        Raises:
            Problem: invalid-request if a kind does not belong to the product or to the label.
        """
        names = [change.image for change in changes]
        if len(set(names)) < len(names):
            raise Problem("invalid-request", "An image is named twice; name each once.")
        with self._database.write() as connection:
            row = require_product(connection, product, lock=True)
            before = require_images(connection, product, names)
            edits = [
                edit_label(row, image, change) | {"of_number": image.number}
                for image, change in zip(before, changes, strict=True)
            ]
            changed = update(product_images).where(IMAGES.number == bindparam("of_number"))
            connection.execute(changed, edits)
            count_change(connection, product)
            after = require_images(connection, product, names)
        return after, [read_label(image) for image in before]

    def set_findings(self, product: str, findings: Mapping[str, Sequence[ImageFinding]]) -> None:
        """Replace the findings of all images, by SHA-256. Images that are gone are skipped."""
        changes = [
            {"of_sha256": sha256, "found": json.dumps([one.model_dump() for one in found])}
            for sha256, found in findings.items()
        ]
        of_product = IMAGES.product == product
        with self._database.write() as connection:
            require_product(connection, product)
            connection.execute(update(product_images).where(of_product).values(findings=None))
            if changes:
                one = update(product_images).where(of_product, IMAGES.sha256 == bindparam("of_sha256"))
                connection.execute(one.values(findings=bindparam("found")), changes)
            checked = update(products).where(products.c.name == product)
            connection.execute(checked.values(checked_ms=clock.now_ms()))

    def count_findings(self, product: str) -> dict[str, int]:
        """Count the images by kind of finding, without excluded ones."""
        marked = IMAGES.product == product, IMAGES.findings.is_not(None), ~IMAGES.excluded
        with self._database.read() as connection:
            found = connection.scalars(select(IMAGES.findings).where(*marked)).all()
        return dict(Counter(kind for text in found for kind in {one["kind"] for one in json.loads(text)}))

    def delete(self, product: str, sha256: str) -> None:
        """Delete an image: its row, then its file."""
        with self.locked():
            image = self.find(product, sha256)
            name = file_name(image)
            with self.files.changing(product, name):
                with self._database.write() as connection:
                    connection.execute(delete(product_images).where(IMAGES.number == image.number))
                    count_change(connection, product)
                self.files.remove(product, name)
            self._bytes -= image.bytes

    def delete_product(self, product: str) -> int:
        """Delete a product with its images; return their number."""
        with self.locked(), self.files.changing(product):
            with self._database.write() as connection:
                of_product = delete(product_images).where(IMAGES.product == product)
                sizes = connection.scalars(of_product.returning(IMAGES.bytes)).all()
                connection.execute(delete(products).where(products.c.name == product))
            self.files.remove(product)
            self._bytes -= sum(sizes)
        return len(sizes)

    def _require_room(self, number: int, size: int) -> None:
        if number >= self._max_images:
            raise RefusedImage(
                "full",
                "too-large",
                f"The product has {number} images, the limit. Delete some, or set FLOWGAUGE_PRODUCT_IMAGES.",
            )
        if self._bytes + size > self._max_bytes:
            raise RefusedImage(
                "full",
                "too-large",
                f"All products hold {self._bytes} bytes of images; the limit is {self._max_bytes}. Delete "
                "some images, or set FLOWGAUGE_PRODUCT_BYTES.",
            )


def _sum_bytes(connection: Connection) -> int:
    return int(connection.scalar(select(func.sum(IMAGES.bytes))) or 0)
