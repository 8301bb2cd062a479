"""Products without a service."""

import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.database.engine import Database
from app.products.image_store import NewImage
from app.products.products import Products
from app.schemas.products import NewProduct
from app.settings import Settings

MakeImage = Callable[..., NewImage]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(history=tmp_path / "history")


@pytest.fixture
def products(each_database: Database, settings: Settings) -> Products:
    """Products with a product "cap", on SQLite and on PostgreSQL."""
    products = Products(each_database, settings)
    products.images.open()
    products.create(NewProduct(name="cap", kinds=["scratch"]))
    return products


@pytest.fixture
def make_image() -> MakeImage:
    """Make images with distinct bytes; keyword arguments are their fields."""
    numbers = itertools.count()

    def make(data: bytes | None = None, **fields: Any) -> NewImage:
        data = b"image %d" % next(numbers) if data is None else data
        sha256 = hashlib.sha256(data).hexdigest()
        values = {"suffix": "png", "name": "a.png", "width": 64, "height": 48, "label": "good", **fields}
        return NewImage(sha256=sha256, data=data, **values)

    return make
