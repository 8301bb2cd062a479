"""The teacher in a service whose jobs run a script."""

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.jobs import teacher as teacher_module
from app.jobs.job_store import JobStore
from app.products.image_store import NewImage
from app.products.products import Products
from app.schemas.products import NewProduct
from tests.app.jobs.conftest import Script
from tests.app.support.services import create_service
from tests.support.waiting import eventually


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A service with the products "cap", which is taught, and "hand", which a person teaches."""
    monkeypatch.setattr(teacher_module, "_POLL_SECONDS", 0.02)
    (tmp_path / "models").mkdir()
    with create_service(tmp_path / "models") as client:
        script = Script(tmp_path, "wait(); tell('error', message='no')")
        script.read_dataset = parts(client).jobs._commands.read_dataset  # type: ignore[method-assign]
        parts(client).jobs._commands = script
        products: Products = parts(client).products
        products.create(NewProduct(name="cap"))
        products.create(NewProduct(name="hand", takeover="manual"))
        yield client


def parts(client: TestClient) -> Any:
    app: Any = client.app
    return app.state


def add_images(client: TestClient, product: str, first: int, count: int) -> None:
    for i in range(first, first + count):
        data = f"{product} {i}".encode()
        sha256 = hashlib.sha256(data).hexdigest()
        parts(client).products.images.add(product, NewImage(sha256, "png", "a.png", 8, 8, data, "good"))


def jobs(client: TestClient) -> list[tuple[str, str, str]]:
    store: JobStore = parts(client).jobs.store
    return [(job.product, job.kind, job.state) for job in store.page(10)]


def test_ten_good_images_begin_a_starter(client: TestClient, tmp_path: Path) -> None:
    add_images(client, "cap", 0, 9)
    add_images(client, "hand", 0, 12)
    teaching = client.get("/v1/products/cap").json()["teaching"]
    assert (teaching["next"], teaching["needed"], teaching["jobs"]) == ("starter", 1, [])
    assert (teaching["target_fpr"], teaching["promised_fpr"]) == (0.01, None)
    assert teaching["missing_for_target"] == 484
    assert client.get("/v1/products/hand").json()["teaching"]["next"] is None
    add_images(client, "cap", 9, 1)
    eventually(lambda: jobs(client) == [("cap", "starter", "running")])
    teaching = client.get("/v1/products/cap").json()["teaching"]
    assert [job["actor"] for job in teaching["jobs"]] == ["server"]
    (tmp_path / "go").touch()
    eventually(lambda: jobs(client) == [("cap", "starter", "failed")])
    teaching = client.get("/v1/products/cap").json()["teaching"]
    assert (teaching["last"]["error"], teaching["needed"]) == ("no", 1)
    [entry] = client.get("/v1/audit", params={"action": "job.start"}).json()["entries"]
    assert (entry["actor"], entry["target"], entry["detail"]["good"]) == ("server", "cap", 10)


def test_teaching_goes_on_after_an_error(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = threading.Event()

    def fail(_: None) -> None:
        failed.set()
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as context:
        context.setattr(parts(client).products, "find", fail)
        failed.wait()
    add_images(client, "cap", 0, 10)
    eventually(lambda: jobs(client) == [("cap", "starter", "running")])
