"""Rows and files of datasets, on both databases, and what a kill between them leaves."""

import json
import shutil
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.exc import DataError

from app.database.engine import Database
from app.database.tables import REVISION
from app.errors.problem_responses import to_problem
from app.errors.problems import Problem
from app.jobs.job_store import JobStore
from app.products import image_store as module
from app.products.image_store import RefusedImage
from app.products.products import Products
from app.products.rows import ImageFilter, file_name
from app.schemas.products import ImageLabel, NewProduct, ProductChange
from app.settings import Settings
from tests.app.products.conftest import MakeImage
from tests.app.support.full_disk import limit_file_size


class Killed(BaseException):
    """In place of a kill: nothing of the process handles it."""


def kill(*_: Any, **__: Any) -> None:
    raise Killed


def restarted(products: Products, settings: Settings) -> Products:
    again = Products(products.database, settings)
    again.images.open()
    return again


def files_of(products: Products) -> set[str]:
    return {path.name for path in products.images.files.folder.glob("*/*") if path.is_file()}


def labels(*changes: ImageLabel) -> list[tuple[str | None, str | None, bool | None]]:
    return [(one.label, one.kind, one.excluded) for one in changes]


def test_tables_before_products_are_migrated(each_database: Database) -> None:
    with each_database.write() as connection:
        connection.execute(text("DROP TABLE product_images"))
        connection.execute(text("DROP TABLE products"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0002'"))
    each_database.upgrade()
    assert each_database.revision == REVISION
    with each_database.read() as connection:
        indexes = {one["name"] for one in inspect(connection).get_indexes("product_images")}
    assert "ix_product_images_product" in indexes


def test_product_is_created_once(products: Products) -> None:
    row = products.get("cap")
    assert (json.loads(row.kinds), row.takeover) == (["scratch"], "automatic")
    assert (row.revision, row.data_revision) == (1, 0)
    with pytest.raises(Problem, match="'cap' already") as caught:
        products.create(NewProduct(name="cap"))
    assert caught.value.name == "conflict"
    with pytest.raises(Problem, match="'backbones'"):
        products.create(NewProduct(name="backbones"))


def test_unknown_names_are_unknown_products(products: Products) -> None:
    for use in (
        lambda: products.get("cup"),
        lambda: products.images.find("cap", "0" * 64),
        lambda: products.images.page("cup", ImageFilter(), 1),
        lambda: products.images.included("cup"),
        lambda: products.images.delete("cap", "0" * 64),
        lambda: products.images.relabel("cap", [ImageLabel(image="0" * 64)]),
    ):
        with pytest.raises(Problem) as caught:
            use()
        assert caught.value.name == "unknown-product"


def test_impossible_names_are_refused(products: Products) -> None:
    for use in (
        lambda: products.get("a\0b"),
        lambda: products.images.find("cap", "a\0b"),
        lambda: products.images.relabel("cap", [ImageLabel(image="a\0b")]),
    ):
        with pytest.raises((Problem, DataError)) as caught:  # PostgreSQL takes no NUL
            use()
        assert to_problem(caught.value).name in ("unknown-product", "invalid-request")


def test_same_bytes_are_stored_once_per_product(products: Products, make_image: MakeImage) -> None:
    image = make_image()
    row, is_new = products.images.add("cap", image)
    again, is_new_again = products.images.add("cap", image)
    assert (is_new, is_new_again, again.number) == (True, False, row.number)
    assert products.images.files.read("cap", file_name(row)) == image.data
    products.create(NewProduct(name="cup"))
    assert products.images.add("cup", image)[1]
    counts = products.counts(["cap", "cup"])
    assert [(one.good, one.bytes) for one in counts.values()] == [(1, len(image.data))] * 2


def test_image_of_several_clients_is_stored_once(products: Products, make_image: MakeImage) -> None:
    image = make_image()
    with ThreadPoolExecutor(8) as pool:
        added = [*pool.map(lambda _: products.images.add("cap", image)[1], range(8))]
    assert sorted(added) == [False] * 7 + [True]
    assert files_of(products) == {f"{image.sha256}.png"}


def test_pages_are_filtered_and_counted(products: Products, make_image: MakeImage) -> None:
    added = [products.images.add("cap", make_image())[0] for _ in range(5)]
    bad = products.images.add("cap", make_image(label="defect", kind="scratch"))[0]
    page, total = products.images.page("cap", ImageFilter(), 2)
    assert ([row.sha256 for row in page], total) == ([bad.sha256, added[4].sha256], 6)
    page, total = products.images.page("cap", ImageFilter(), 9, page[-1].number)
    assert ([row.sha256 for row in page], total) == ([row.sha256 for row in added[3::-1]], 6)
    page, total = products.images.page("cap", ImageFilter(label="defect", kind="scratch", excluded=False), 9)
    assert ([row.sha256 for row in page], total) == ([bad.sha256], 1)


def test_undo_restores_each_label(products: Products, make_image: MakeImage) -> None:
    good = products.images.add("cap", make_image())[0].sha256
    bad = products.images.add("cap", make_image(label="defect", kind="scratch"))[0].sha256
    changes = [ImageLabel(image=one, label="defect", excluded=True) for one in (good, bad)]
    before_revision = products.get("cap").data_revision
    after, before = products.images.relabel("cap", changes)
    changed = [(row.label, row.kind, row.excluded) for row in after]
    assert changed == [("defect", None, True), ("defect", "scratch", True)]
    assert labels(*before) == [("good", None, False), ("defect", "scratch", False)]
    assert products.counts(["cap"])["cap"].excluded == 2
    assert products.get("cap").data_revision == before_revision + 1
    undone, _ = products.images.relabel("cap", before)
    assert [(row.label, row.kind, row.excluded) for row in undone] == labels(*before)
    made_good, _ = products.images.relabel("cap", [ImageLabel(image=bad, label="good")])
    assert (made_good[0].label, made_good[0].kind) == ("good", None)


def test_changes_are_made_together_or_not_at_all(products: Products, make_image: MakeImage) -> None:
    good = products.images.add("cap", make_image())[0].sha256
    change = ImageLabel(image=good, label="defect")
    for wrong, reason in (
        (ImageLabel(image="0" * 64, label="good"), "no image"),
        (ImageLabel(image=good, label="good"), "twice"),
    ):
        with pytest.raises(Problem, match=reason):
            products.images.relabel("cap", [change, wrong])
    for wrong, reason in (
        (ImageLabel(image=good, label="defect", kind="dent"), "no kind 'dent'; it has 'scratch'"),
        (ImageLabel(image=good, kind="scratch"), "good image has no kind"),
    ):
        with pytest.raises(Problem, match=reason):
            products.images.relabel("cap", [wrong])
    assert products.images.find("cap", good).label == "good"


def test_kind_that_images_have_stays(products: Products, make_image: MakeImage) -> None:
    products.images.add("cap", make_image(label="defect", kind="scratch"))
    with pytest.raises(Problem, match="have the kind 'scratch'"):
        products.change("cap", ProductChange(kinds=["dent"]), lambda _: None)
    change = ProductChange(kinds=["dent", "scratch", "dent"], takeover="manual")
    row = products.change("cap", change, lambda _: None)
    assert (json.loads(row.kinds), row.takeover, row.revision) == (["dent", "scratch"], "manual", 2)
    products.add_kinds("cap", ["hole", "dent"])
    products.add_kinds("cap", ["hole"])
    row = products.get("cap")
    assert (json.loads(row.kinds), row.revision) == (["dent", "scratch", "hole"], 3)
    with pytest.raises(Problem, match="more than 100 kinds"):
        products.add_kinds("cap", {f"kind {i}" for i in range(98)})


def test_revision_grows_over_products_of_a_name(products: Products, make_image: MakeImage) -> None:
    """Otherwise the jobs of a deleted product seem to know the images of the next one."""
    products.images.add("cap", make_image())
    revision = products.get("cap").data_revision
    JobStore(products.database).add("starter", "cap", {}, "server", revision, 1)
    products.delete("cap", lambda _: None)
    assert products.create(NewProduct(name="cap")).data_revision == revision == 1


def test_deleted_image_and_product_leave_no_file(products: Products, make_image: MakeImage) -> None:
    first, second = (products.images.add("cap", make_image())[0] for _ in range(2))
    products.images.files.write_thumbnail("cap", file_name(first), b"small")
    products.images.delete("cap", first.sha256)
    assert files_of(products) == {file_name(second)}
    assert products.images.files.read_thumbnail("cap", file_name(first)) is None
    assert products.delete("cap", lambda _: None) == 1
    assert files_of(products) == set()
    assert products.find(None) == []


@pytest.mark.parametrize("at", ["before the file", "before the row", "after the row"])
def test_kill_while_storing_leaves_all_or_nothing(
    products: Products, settings: Settings, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    kept = products.images.add("cap", make_image())[0]
    image = make_image()
    places = {"before the file": (Path, "replace"), "before the row": (module, "count_change")}
    with monkeypatch.context() as patched:
        patched.setattr(*places.get(at, (Path, "unlink")), kill)
        with pytest.raises(Killed):
            products.images.add("cap", image)
    again = restarted(products, settings)
    is_stored = at == "after the row"
    assert files_of(again) == {file_name(kept)} | ({f"{image.sha256}.png"} if is_stored else set())
    assert not list(again.images.files.folder.rglob(".*.part"))
    assert again.images.add("cap", image)[1] is not is_stored
    assert again.images.files.read("cap", f"{image.sha256}.png") == image.data


@pytest.mark.parametrize("of_product", [False, True])
@pytest.mark.parametrize("at", ["before the row", "before the file"])
def test_kill_while_deleting_deletes_all_or_nothing(
    products: Products,
    settings: Settings,
    make_image: MakeImage,
    monkeypatch: pytest.MonkeyPatch,
    at: str,
    of_product: bool,
) -> None:
    image = products.images.add("cap", make_image())[0]
    arguments = ("cap",) if of_product else ("cap", image.sha256)
    act: Any = products.images.delete_product if of_product else products.images.delete
    with monkeypatch.context() as patched:
        place: Any = module if at == "before the row" else products.images.files
        patched.setattr(place, "delete" if at == "before the row" else "remove", kill)
        with pytest.raises(Killed):
            act(*arguments)
    again = restarted(products, settings)
    left = {file_name(image)} if at == "before the row" else set()
    assert files_of(again) == left
    assert (
        {file_name(row) for row in again.images.included("cap")} == left if again.find(["cap"]) else not left
    )


def test_limits_on_images_bytes_and_disk(
    products: Products, settings: Settings, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    products.images.add("cap", make_image(b"x" * 100))
    for limits, reason in (
        ({"product_images": 1}, "1 images, the limit"),
        ({"product_bytes": 150}, "hold 100 bytes"),
    ):
        limited = restarted(products, settings.model_copy(update=limits))
        with pytest.raises(RefusedImage, match=reason) as caught:
            limited.images.add("cap", make_image(b"y" * 100))
        assert caught.value.item_status == "full"
    with limit_file_size(50), pytest.raises(RefusedImage, match="disk has no room"):
        products.images.add("cap", make_image(b"y" * 100))
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**20))
    with pytest.raises(RefusedImage, match="beside the reserve for inspections"):
        products.images.add("cap", make_image(b"y" * 100))
    assert products.counts(["cap"])["cap"].good == 1
    assert len(files_of(restarted(products, settings))) == 1


def test_changed_file_is_not_returned(products: Products, make_image: MakeImage) -> None:
    row = products.images.add("cap", make_image())[0]
    products.images.files.path("cap", file_name(row)).write_bytes(b"other")
    assert products.images.files.read("cap", file_name(row)) is None
    products.images.files.path("cap", file_name(row)).unlink()
    assert products.images.files.read("cap", file_name(row)) is None
