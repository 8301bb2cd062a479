"""Products and their images: rows in the database, files in the history's folder."""

import errno
import json
import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, and_, bindparam, delete, func, insert, select, update

from app.database import clock
from app.database.engine import Database
from app.database.tables import product_images, products
from app.errors.problems import Problem, ProblemName
from app.products.dataset_files import DatasetFiles
from app.registry.free_disk import require_room_for_upload
from app.schemas.history import Verdict
from app.schemas.products import (
    ImageCounts,
    ImageFinding,
    ImageLabel,
    ImageSource,
    ItemStatus,
    NewProduct,
    ProductChange,
)
from app.settings import Settings
from flows.fastflow.bundle.models_folder import is_category

_IMAGES: Final = product_images.columns
_DISK_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ANY_FINDING: Final = "any"


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


@dataclass(frozen=True)
class ImageFilter:
    """Criteria of images; None means any. `finding` is a kind of the data check, or "any"."""

    label: Verdict | None = None
    kind: str | None = None
    excluded: bool | None = None
    finding: str | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the SQL conditions."""
        given = {"label": self.label, "kind": self.kind, "excluded": self.excluded}
        conditions = [_IMAGES[name] == value for name, value in given.items() if value is not None]
        if self.finding == ANY_FINDING:
            conditions.append(_IMAGES.findings.is_not(None))
        elif self.finding is not None:
            conditions.append(_IMAGES.findings.contains(f'"kind": "{self.finding}"', autoescape=True))
        return conditions


class Products:
    """The products of a service. All methods may block; threads may share an object.

    Raises:
        Problem: unknown-product from each method that gets a name; DatabaseUnavailable.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.files = DatasetFiles(settings.history.absolute())
        self._max_images = settings.product_images
        self._max_bytes = settings.product_bytes
        # Held while a file gets or loses its row, and for the total of bytes.
        self._lock = threading.Lock()
        self._bytes = 0

    def open(self) -> None:
        """Create the folders, and undo interrupted changes. The tables exist and nobody else uses them."""

        def has_row(product: str, name: str) -> bool:
            with self.database.read() as connection:
                if not name:
                    return _find(connection, product) is not None
                return _find_images(connection, product, [name.partition(".")[0]]) != {}

        self.files.open(has_row)
        with self.database.read() as connection:
            self._bytes = connection.scalar(select(func.sum(_IMAGES.bytes))) or 0

    def create(self, new: NewProduct) -> Row[Any]:
        """Create a product.

        Raises:
            Problem: invalid-request if no category can have the name; conflict if the product exists.
        """
        if not is_category(new.name):
            raise Problem("invalid-request", f"No category can have the name {new.name!r}.")
        values = {
            "name": new.name,
            "created_ms": clock.now_ms(),
            "kinds": json.dumps(_distinct(new.kinds)),
            "takeover": new.takeover,
            "revision": 1,
            "data_revision": 0,
        }
        with self._lock, self.database.write() as connection:
            if _find(connection, new.name) is not None:
                raise Problem("conflict", f"There is a product {new.name!r} already.")
            return connection.execute(insert(products).values(values).returning(products)).one()

    def find(self, names: Collection[str] | None) -> list[Row[Any]]:
        """Find products by name, in that order; None for all."""
        query = select(products).order_by(products.c.name)
        with self.database.read() as connection:
            found = connection.execute(query).all()
        return [row for row in found if names is None or row.name in names]

    def get(self, name: str) -> Row[Any]:
        """Find a product."""
        with self.database.read() as connection:
            return _require(connection, name)

    def counts(self, names: Collection[str]) -> dict[str, ImageCounts]:
        """Count the images of products."""
        marked = func.count(_IMAGES.findings)
        query = (
            select(
                _IMAGES.product,
                _IMAGES.label,
                _IMAGES.excluded,
                func.count(),
                marked,
                func.sum(_IMAGES.bytes),
            )
            .where(_IMAGES.product.in_(names))
            .group_by(_IMAGES.product, _IMAGES.label, _IMAGES.excluded)
        )
        totals = {name: Counter[str]() for name in names}
        with self.database.read() as connection:
            for product, label, excluded, number, findings, size in connection.execute(query):
                total = totals[product]
                total["excluded" if excluded else label] += number
                total["findings"] += 0 if excluded else findings
                total["bytes"] += int(size)
        fields = ImageCounts.model_fields
        return {
            name: ImageCounts(**{field: total[field] for field in fields}) for name, total in totals.items()
        }

    def change(self, name: str, change: ProductChange, check: Callable[[Row[Any]], None]) -> Row[Any]:
        """Change settings of a product; `check` gets the product before, and may raise.

        Raises:
            Problem: conflict if images have a kind that would go.
        """
        with self.database.write() as connection:
            before = _require(connection, name)
            check(before)
            values: dict[str, Any] = {"revision": before.revision + 1}
            if change.takeover is not None:
                values["takeover"] = change.takeover
            if change.kinds is not None:
                used = select(_IMAGES.kind).where(_IMAGES.product == name, _IMAGES.kind.is_not(None))
                if gone := set(connection.scalars(used.distinct())) - set(change.kinds):
                    raise Problem("conflict", f"Images have the kind {min(gone)!r}; change their kind first.")
                values["kinds"] = json.dumps(_distinct(change.kinds))
            changed = update(products).where(products.c.name == name).values(values)
            return connection.execute(changed.returning(products)).one()

    def add_kinds(self, name: str, kinds: Collection[str]) -> None:
        """Add the kinds of defect that the product does not have yet."""
        with self.database.write() as connection:
            before = _require(connection, name)
            known = json.loads(before.kinds)
            if new := sorted(set(kinds).difference(known)):
                values = {"kinds": json.dumps([*known, *new]), "revision": before.revision + 1}
                connection.execute(update(products).where(products.c.name == name).values(values))

    def delete(self, name: str, check: Callable[[Row[Any]], None]) -> int:
        """Delete a product with its images; return their number. `check` gets the product, and may raise."""
        with self._lock:
            with self.database.read() as connection:
                check(_require(connection, name))
            with self.files.changing(name):
                with self.database.write() as connection:
                    of_product = _IMAGES.product == name
                    gone = connection.scalars(
                        delete(product_images).where(of_product).returning(_IMAGES.bytes)
                    )
                    sizes = gone.all()
                    connection.execute(delete(products).where(products.c.name == name))
                self.files.remove(name)
            self._bytes -= sum(sizes)
        return len(sizes)

    def find_image(self, product: str, sha256: str) -> Row[Any]:
        """Find an image of a product."""
        with self.database.read() as connection:
            return _require_image(connection, product, sha256)

    def find_page(
        self, product: str, where: ImageFilter, limit: int, before: int | None = None
    ) -> tuple[Sequence[Row[Any]], int]:
        """Return the latest matching images, below a number if one is given, and the number of all."""
        matching = and_(_IMAGES.product == product, *where.conditions())
        query = select(product_images).where(matching).order_by(_IMAGES.number.desc()).limit(limit)
        if before is not None:
            query = query.where(_IMAGES.number < before)
        with self.database.read() as connection:
            _require(connection, product)
            return connection.execute(query).all(), _count(connection, matching)

    def images(self, product: str) -> Sequence[Row[Any]]:
        """Return the images of a product that are not excluded, in the order of their SHA-256."""
        query = select(product_images).where(_IMAGES.product == product, ~_IMAGES.excluded)
        with self.database.read() as connection:
            _require(connection, product)
            return connection.execute(query.order_by(_IMAGES.sha256)).all()

    def add_image(self, product: str, new: NewImage) -> tuple[Row[Any], bool]:
        """Store an image: its file, then its row. Return the row, and False if the product had it before.

        Raises:
            RefusedImage: the dataset or the disk is full.
        """
        with self._lock:
            with self.database.read() as connection:
                _require(connection, product)
                known = _find_images(connection, product, [new.sha256]).get(new.sha256)
                of_product = (
                    select(func.count()).select_from(product_images).where(_IMAGES.product == product)
                )
                number = connection.scalar(of_product) or 0
            if known is not None:
                return known, False
            self._require_room(number, len(new.data))
            values = {
                **new._asdict(),
                "product": product,
                "bytes": len(new.data),
                "excluded": False,
                "added_ms": clock.now_ms(),
                "revision": 1,
            }
            del values["data"]
            name = f"{new.sha256}.{new.suffix}"
            with self.files.changing(product, name):
                self._write(product, name, new.data)
                with self.database.write() as connection:
                    _touch(connection, product)
                    added = insert(product_images).values(values).returning(product_images)
                    row = connection.execute(added).one()
            self._bytes += len(new.data)
        return row, True

    def change_images(
        self, product: str, changes: Sequence[ImageLabel], check: Callable[[Row[Any]], None] = lambda _: None
    ) -> tuple[list[Row[Any]], list[ImageLabel]]:
        """Change labels of images, all or none; return the images, and their labels before.

        Args:
            check: gets each image before, and may raise.

        Raises:
            Problem: invalid-request if a kind does not belong to the product or to the label.
        """
        names = [change.image for change in changes]
        if len(set(names)) < len(names):
            raise Problem("invalid-request", "An image is named twice; name each once.")
        with self.database.write() as connection:
            row = _require(connection, product)
            found = _find_images(connection, product, names)
            before = [found.get(name) or _require_image(connection, product, name) for name in names]
            for image in before:
                check(image)
            edits = [_edited(row, image, change) for image, change in zip(before, changes, strict=True)]
            changed = update(product_images).where(_IMAGES.number == bindparam("of_number"))
            connection.execute(changed, edits)
            _touch(connection, product)
            after = _find_images(connection, product, names)
        return [after[name] for name in names], [to_label(image) for image in before]

    def find_marked(self, product: str) -> Sequence[Row[Any]]:
        """Return the images with findings, the latest first."""
        marked = _IMAGES.product == product, _IMAGES.findings.is_not(None)
        with self.database.read() as connection:
            query = select(product_images).where(*marked).order_by(_IMAGES.number.desc())
            return connection.execute(query).all()

    def set_findings(self, product: str, findings: Mapping[str, Sequence[ImageFinding]]) -> None:
        """Replace the findings of all images, by SHA-256. Images that are gone are skipped."""
        changes = [
            {"of_sha256": sha256, "found": json.dumps([one.model_dump() for one in found])}
            for sha256, found in findings.items()
        ]
        of_product = _IMAGES.product == product
        with self.database.write() as connection:
            _require(connection, product)
            connection.execute(update(product_images).where(of_product).values(findings=None))
            if changes:
                one = update(product_images).where(of_product, _IMAGES.sha256 == bindparam("of_sha256"))
                connection.execute(one.values(findings=bindparam("found")), changes)
            checked = update(products).where(products.c.name == product)
            connection.execute(checked.values(checked_ms=clock.now_ms()))

    def delete_image(self, product: str, sha256: str, check: Callable[[Row[Any]], None]) -> None:
        """Delete an image: its row, then its file. `check` gets the image, and may raise."""
        with self._lock:
            image = self.find_image(product, sha256)
            check(image)
            name = file_name(image)
            with self.files.changing(product, name):
                with self.database.write() as connection:
                    connection.execute(delete(product_images).where(_IMAGES.number == image.number))
                    _touch(connection, product)
                self.files.remove(product, name)
            self._bytes -= image.bytes

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

    def _write(self, product: str, name: str, data: bytes) -> None:
        try:
            require_room_for_upload(self.files.folder, len(data))
            self.files.write(product, name, data)
        except OSError as error:
            if error.errno not in _DISK_FULL:
                raise
            raise RefusedImage(
                "full",
                "too-large",
                "The disk has no room for the image beside the reserve for inspections. Free some space.",
            ) from error


def file_name(image: Row[Any]) -> str:
    """Return the name of an image's file."""
    return f"{image.sha256}.{image.suffix}"


def require_kind(product: Row[Any], label: Verdict, kind: str | None) -> None:
    """Raise the problem invalid-request unless a label of the product may have the kind."""
    if kind is None:
        return
    if label == "good":
        raise Problem("invalid-request", f"A good image has no kind of defect; got {kind!r}.")
    if kind not in (kinds := json.loads(product.kinds)):
        known = ", ".join(map(repr, kinds)) or "none yet"
        raise Problem(
            "invalid-request",
            f"Product {product.name!r} has no kind {kind!r}; it has {known}. Add it to the product first.",
        )


def to_label(image: Row[Any]) -> ImageLabel:
    """Return the label of an image, in the form of a change."""
    return ImageLabel(image=image.sha256, label=image.label, kind=image.kind, excluded=image.excluded)


def _edited(product: Row[Any], image: Row[Any], change: ImageLabel) -> dict[str, Any]:
    label = change.label or image.label
    kind = change.kind if "kind" in change.model_fields_set else image.kind
    if label == "good" and "kind" not in change.model_fields_set:
        kind = None
    if kind != image.kind:
        require_kind(product, label, kind)
    excluded = image.excluded if change.excluded is None else change.excluded
    return {
        "of_number": image.number,
        "label": label,
        "kind": kind,
        "excluded": excluded,
        "revision": image.revision + 1,
    }


def _distinct(kinds: Sequence[str]) -> list[str]:
    return [*dict.fromkeys(kinds)]


def _find(connection: Connection, name: str) -> Row[Any] | None:
    return connection.execute(select(products).where(products.c.name == name)).one_or_none()


def _require(connection: Connection, name: str) -> Row[Any]:
    row = _find(connection, name)
    if row is None:
        raise Problem("unknown-product", f"There is no product {name[:64]!r}; GET /v1/products lists them.")
    return row


def _find_images(connection: Connection, product: str, hashes: Sequence[str]) -> Mapping[str, Row[Any]]:
    query = select(product_images).where(_IMAGES.product == product, _IMAGES.sha256.in_(hashes))
    return {row.sha256: row for row in connection.execute(query)}


def _require_image(connection: Connection, product: str, sha256: str) -> Row[Any]:
    _require(connection, product)
    row = _find_images(connection, product, [sha256]).get(sha256)
    if row is None:
        raise Problem("unknown-product", f"Product {product!r} has no image {sha256[:64]!r}.")
    return row


def _count(connection: Connection, condition: ColumnElement[bool]) -> int:
    return connection.scalar(select(func.count()).select_from(product_images).where(condition)) or 0


def _touch(connection: Connection, product: str) -> None:
    """Count a change of a product's images."""
    changed = {"data_revision": products.c.data_revision + 1}
    connection.execute(update(products).where(products.c.name == product).values(changed))
