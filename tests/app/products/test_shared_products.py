"""Products of several servers: one PostgreSQL and one store."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.database.engine import Database
from app.errors.problems import Problem
from app.products.folders import make_folder
from app.products.image_store import RefusedImage
from app.products.products import Products
from app.products.rows import file_name
from app.schemas.products import NewProduct
from app.settings import Settings
from app.storage.store import StoreUnavailable
from app.storage.urls import open_store
from tests.app.products.conftest import MakeImage
from tests.support.postgres import Postgres, is_waiting
from tests.support.s3 import S3Server
from tests.support.waiting import eventually

MakeServer = Callable[..., Products]


@pytest.fixture
def make_server(postgres: Postgres, tmp_path: Path) -> Iterator[MakeServer]:
    """Make the products of a server with a folder of its own; keyword arguments are settings."""
    databases = []

    def make(name: str, store: str, **settings: int) -> Products:
        databases.append(Database(url))
        databases[-1].upgrade()
        given = Settings(history=tmp_path / name, database=url, store=store)
        products = Products(databases[-1], given.model_copy(update=settings))
        products.images.open()
        return products

    (tmp_path / "shared").mkdir()
    with postgres.database() as url:
        yield make
        for database in databases:
            database.close()


def test_images_are_shared(
    make_server: MakeServer, s3_url: str, make_image: MakeImage, tmp_path: Path
) -> None:
    one, two = make_server("one", s3_url), make_server("two", s3_url)
    one.create(NewProduct(name="cap"))
    with pytest.raises(Problem, match="'cap' already"):
        two.create(NewProduct(name="cap"))
    first, second = make_image(), make_image(label="defect")
    rows = [one.images.add("cap", image)[0] for image in (first, second)]
    assert two.images.add("cap", first) == (rows[0], False)
    assert two.images.files.read("cap", file_name(rows[1])) == second.data
    make_folder(two, "cap", tmp_path / "job")
    made = (tmp_path / "job").rglob("*.png")
    assert {path.read_bytes() for path in made} == {first.data, second.data}
    assert not list(tmp_path.glob("*/products/cap"))
    store = open_store(s3_url)
    two.images.delete("cap", first.sha256)
    assert [*store.list("")] == [f"products/cap/{file_name(rows[1])}"]
    store.write(f"products/cap/{file_name(rows[1])}", b"damaged")
    with pytest.raises(Problem, match="missing or damaged"):
        make_folder(one, "cap", tmp_path / "other")
    assert one.delete("cap", lambda _: None) == 1
    assert [*store.list("")] == []


def test_start_deletes_thumbnails_of_products_that_are_gone(
    make_server: MakeServer, make_image: MakeImage, tmp_path: Path
) -> None:
    store = f"file://{tmp_path}/shared"
    one, two = make_server("one", store), make_server("two", store)
    one.create(NewProduct(name="cap"))
    name = file_name(one.images.add("cap", make_image())[0])
    two.images.files.write_thumbnail("cap", name, b"small")
    two.images.open()
    assert two.images.files.read_thumbnail("cap", name) == b"small"
    one.delete("cap", lambda _: None)
    two.images.open()
    assert two.images.files.read_thumbnail("cap", name) is None


def test_limit_of_bytes_holds_across_servers(
    make_server: MakeServer, make_image: MakeImage, tmp_path: Path
) -> None:
    store = f"file://{tmp_path}/shared"
    servers = [make_server(name, store, product_bytes=1000) for name in ("one", "two")]
    servers[0].create(NewProduct(name="cap"))
    images = [make_image(b"%03d" % number * 100) for number in range(8)]  # 300 bytes each

    def add(number: int) -> bool:
        try:
            return servers[number % 2].images.add("cap", images[number])[1]
        except RefusedImage:
            return False

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(add, range(8))) == 3
    stored = servers[0].images.included("cap")
    servers[1].images.delete("cap", stored[0].sha256)
    assert sum(map(add, range(8))) == 1


def test_image_is_not_added_while_another_server_deletes_it(
    make_server: MakeServer, make_image: MakeImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = f"file://{tmp_path}/shared"
    one, two = make_server("one", store), make_server("two", store)
    one.create(NewProduct(name="cap"))
    image = make_image()
    row = one.images.add("cap", image)[0]
    without_row, go_on = threading.Event(), threading.Event()
    remove = two.images.files.remove

    def remove_slowly(product: str, name: str) -> None:
        without_row.set()
        assert go_on.wait(60)
        remove(product, name)

    monkeypatch.setattr(two.images.files, "remove", remove_slowly)
    with ThreadPoolExecutor(2) as threads:
        deleting = threads.submit(two.images.delete, "cap", image.sha256)
        assert without_row.wait(60)
        adding = threads.submit(one.images.add, "cap", image)
        eventually(lambda: adding.done() or is_waiting(one.database))
        go_on.set()
        deleting.result()
        assert adding.result()[1]
    assert one.images.files.read("cap", file_name(row)) == image.data


def test_store_that_is_away_is_told(
    make_server: MakeServer, s3_url: str, s3_server: S3Server, make_image: MakeImage, tmp_path: Path
) -> None:
    products = make_server("one", s3_url)
    products.create(NewProduct(name="cap"))
    row = products.images.add("cap", make_image())[0]
    s3_server.kill()
    try:
        for use in (
            lambda: products.images.files.read("cap", file_name(row)),
            lambda: products.images.add("cap", make_image()),
            lambda: make_folder(products, "cap", tmp_path / "job"),
        ):
            with pytest.raises(StoreUnavailable):
                use()
        assert len(products.images.included("cap")) == 1
    finally:
        s3_server.start()
