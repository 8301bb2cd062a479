import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from flows.fastflow.bundle import models_folder
from flows.fastflow.bundle.bundle import read_manifest
from tests.app.conftest import Keyed
from tests.app.routes.pages.rows import add, answered
from tests.app.support.guard import assert_problem
from tests.app.support.services import inspect_and_review
from tests.conftest import picture

NAMES = ("thumbnail", "picture", "overlay", "large-picture", "large-overlay")


def upload(size: tuple[int, int], kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(1, defect=True)).resize(size).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_every_view_is_a_jpeg_whatever_came(service: TestClient, name: str, kind: str) -> None:
    identifier = inspect_and_review(service, upload((96, 64), kind), None)
    response = service.get(f"/inspections/{identifier}/{name}.jpg")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "image/jpeg"
    with Image.open(io.BytesIO(response.content)) as image:
        assert (image.format, image.size) == ("JPEG", (96, 64))


def test_never_changes_and_is_not_sent_twice(service: TestClient) -> None:
    path = f"/inspections/{inspect_and_review(service, upload((64, 64), 'PNG'), None)}/thumbnail.jpg"
    first = service.get(path)
    assert "immutable" in first.headers["Cache-Control"]
    again = service.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("columns", [{"has_pictures": False}, {}])
def test_what_is_not_there_is_told(keyed: Keyed, columns: dict[str, Any]) -> None:
    [identifier] = add(keyed.database, answered(**columns))
    response = keyed.client.get(f"/inspections/{identifier}/picture.jpg", headers=keyed.show("viewer"))
    if columns:
        assert "Retention" in assert_problem(response, 404, "unknown-inspection")
    else:
        assert response.status_code == 410  # the row says that it is kept, and the disk has not got it


def test_typical_image_is_the_golden_one_of_middle_score(
    service: TestClient, tiny_bundle_store: Path
) -> None:
    bundle = models_folder.resolve(tiny_bundle_store, "tiny")
    golden = sorted(read_manifest(bundle).golden, key=lambda one: one.score)
    address = f"/models/tiny/versions/{bundle.name}/typical.jpg"
    response = service.get(address)
    assert response.headers["Content-Type"] == "image/jpeg"
    with Image.open(io.BytesIO(response.content)) as image, Image.open(bundle / golden[1].file) as middle:
        difference = np.asarray(image, float) - np.asarray(middle.convert("RGB"), float)
    assert np.abs(difference).mean() < 10  # as a JPEG
    assert service.get(address, headers={"If-None-Match": response.headers["ETag"]}).status_code == 304
    page = service.get(f"/inspections/{inspect_and_review(service, upload((64, 64), 'PNG'), None)}").text
    assert f'href="{address}"' in page
    assert_problem(service.get("/models/tiny/versions/none/typical.jpg"), 404, "unknown-model")
