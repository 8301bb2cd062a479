"""Products: categories that can be taught, with settings and images."""

import json
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

from sqlalchemy import Row, func, insert, select, update

from app.database import clock
from app.database.engine import Database
from app.database.tables import jobs, products
from app.errors.problems import Problem
from app.products.image_store import ImageStore
from app.products.rows import IMAGES, find_product, require_product
from app.schemas.products import MAX_KINDS, ImageCounts, NewProduct, ProductChange
from app.settings import Settings
from flows.fastflow.bundle.models_folder import is_category


class Products:
    """The products of a service. All methods may block; threads may share an object.

    Attributes:
        images: of all products.

    Raises:
        Problem: unknown-product from each method that gets a name; DatabaseUnavailable.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.images = ImageStore(database, settings)

    def create(self, new: NewProduct) -> Row[Any]:
        """Create a product.

        Raises:
            Problem: invalid-request if no category can have the name; conflict if the product exists.
        """
        if not is_category(new.name):
            raise Problem("invalid-request", f"No category can have the name {new.name!r}.")
        values: dict[str, Any] = {
            "name": new.name,
            "created_ms": clock.now_ms(),
            "kinds": json.dumps([*dict.fromkeys(new.kinds)]),
            "takeover": new.takeover,
            "revision": 1,
        }
        with self.images.locked(), self.database.write() as connection:
            if find_product(connection, new.name) is not None:
                raise Problem("conflict", f"There is a product {new.name!r} already.")
            # After those that jobs know of a deleted product with this name.
            known = connection.scalar(
                select(func.max(jobs.c.data_revision)).where(jobs.c.product == new.name)
            )
            values["data_revision"] = known or 0
            return connection.execute(insert(products).values(values).returning(products)).one()

    def find(self, names: Collection[str] | None) -> list[Row[Any]]:
        """Find products by name, in that order; None for all."""
        query = select(products).order_by(products.c.name)
        with self.database.read() as connection:
            found = connection.execute(query).all()
        return [row for row in found if names is None or row.name in names]

    def get(self, name: str) -> Row[Any]:
        with self.database.read() as connection:
            return require_product(connection, name)

    def counts(self, names: Collection[str]) -> dict[str, ImageCounts]:
        groups = (IMAGES.product, IMAGES.label, IMAGES.excluded)
        sums = (func.count(), func.count(IMAGES.findings), func.sum(IMAGES.bytes))
        query = select(*groups, *sums).where(IMAGES.product.in_(names)).group_by(*groups)
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
            before = require_product(connection, name, lock=True)
            check(before)
            values: dict[str, Any] = {"revision": before.revision + 1}
            if change.takeover is not None:
                values["takeover"] = change.takeover
            if change.kinds is not None:
                used = select(IMAGES.kind).where(IMAGES.product == name, IMAGES.kind.is_not(None))
                if gone := set(connection.scalars(used.distinct())) - set(change.kinds):
                    raise Problem("conflict", f"Images have the kind {min(gone)!r}; change their kind first.")
                values["kinds"] = json.dumps([*dict.fromkeys(change.kinds)])
            changed = update(products).where(products.c.name == name).values(values)
            return connection.execute(changed.returning(products)).one()

    def add_kinds(self, name: str, kinds: Collection[str]) -> None:
        """Add the kinds of defect that the product does not have yet.

        Raises:
            Problem: invalid-request if it would have too many.
        """
        with self.database.write() as connection:
            before = require_product(connection, name, lock=True)
            known = json.loads(before.kinds)
            if not (new := sorted(set(kinds).difference(known))):
                return
            if len(known) + len(new) > MAX_KINDS:
                raise Problem(
                    "invalid-request",
                    f"With {new[0]!r} the product would have more than {MAX_KINDS} kinds of defect, the "
                    "limit. Name a label and a kind for the images.",
                )
            values = {"kinds": json.dumps([*known, *new]), "revision": before.revision + 1}
            connection.execute(update(products).where(products.c.name == name).values(values))

    def delete(self, name: str, check: Callable[[Row[Any]], None]) -> int:
        """Delete a product with its images; return their number. `check` gets the product, and may raise."""
        check(self.get(name))
        return self.images.delete_product(name)
