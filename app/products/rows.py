"""Rows of products and of their images, in a transaction of the caller."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, select, update

from app.database.tables import product_images, products
from app.errors.problems import Problem
from app.schemas.history import Verdict

IMAGES: Final = product_images.columns
ANY_FINDING: Final = "any"


@dataclass(frozen=True)
class ImageFilter:
    """Criteria of images; None means any. `finding` is a kind of the data check, or "any"."""

    label: Verdict | None = None
    kind: str | None = None
    excluded: bool | None = None
    finding: str | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        given = {"label": self.label, "kind": self.kind, "excluded": self.excluded}
        conditions = [IMAGES[name] == value for name, value in given.items() if value is not None]
        if self.finding == ANY_FINDING:
            conditions.append(IMAGES.findings.is_not(None))
        elif self.finding is not None:
            conditions.append(IMAGES.findings.contains(f'"kind": "{self.finding}"', autoescape=True))
        return conditions


def find_product(connection: Connection, name: str, *, lock: bool = False) -> Row[Any] | None:
    """Find a product; None if there is none. `lock` keeps other writers away until the transaction ends."""
    query = select(products).where(products.c.name == name)
    # SQLite has one writer at a time anyway.
    return connection.execute(query.with_for_update() if lock else query).one_or_none()


def require_product(connection: Connection, name: str, *, lock: bool = False) -> Row[Any]:
    """Find a product, or raise the problem unknown-product."""
    row = find_product(connection, name, lock=lock)
    if row is None:
        raise Problem("unknown-product", f"There is no product {name[:64]!r}; GET /v1/products lists them.")
    return row


def find_images(connection: Connection, product: str, hashes: Collection[str]) -> Mapping[str, Row[Any]]:
    """Find images of a product by their SHA-256; those that it does not have are missing."""
    query = select(product_images).where(IMAGES.product == product, IMAGES.sha256.in_(hashes))
    return {row.sha256: row for row in connection.execute(query)}


def require_images(connection: Connection, product: str, hashes: Collection[str]) -> list[Row[Any]]:
    """Find images of a product in the order given, or raise the problem unknown-product."""
    require_product(connection, product)
    found = find_images(connection, product, hashes)
    if missing := [sha256 for sha256 in hashes if sha256 not in found]:
        raise Problem("unknown-product", f"Product {product!r} has no image {missing[0][:64]!r}.")
    return [found[sha256] for sha256 in hashes]


def count_change(connection: Connection, product: str) -> None:
    changed = {"data_revision": products.c.data_revision + 1}
    connection.execute(update(products).where(products.c.name == product).values(changed))


def file_name(image: Row[Any]) -> str:
    return f"{image.sha256}.{image.suffix}"
