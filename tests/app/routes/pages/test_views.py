import io
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.routes.pages import views
from tests.app.conftest import Keyed
from tests.app.guarded import expect_problem
from tests.app.routes.pages.rows import add, answered
from tests.conftest import picture

NAMES = ("thumbnail", "picture", "heatmap", "overlay")


def upload(size: tuple[int, int], kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(1, defect=True)).resize(size).save(file, kind)
    return file.getvalue()


def inspected(service: TestClient, data: bytes) -> str:
    answer = service.post("/v1/models/tiny/predict", content=data, headers={"Content-Type": "image/png"})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["inspection_id"])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_every_view_is_a_jpeg_whatever_came(service: TestClient, name: str, kind: str) -> None:
    identifier = inspected(service, upload((96, 64), kind))
    response = service.get(f"/inspections/{identifier}/{name}.jpg")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "image/jpeg"
    with Image.open(io.BytesIO(response.content)) as image:
        assert (image.format, image.size) == ("JPEG", (96, 64))


def test_is_no_larger_than_it_need_be_and_keeps_the_shape(
    service: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(views._VIEWS, "thumbnail", ("overlay", 30))
    identifier = inspected(service, upload((90, 60), "PNG"))
    with Image.open(io.BytesIO(service.get(f"/inspections/{identifier}/thumbnail.jpg").content)) as image:
        assert image.size == (30, 20)


def test_differ_in_what_they_show(service: TestClient) -> None:
    identifier = inspected(service, upload((64, 64), "PNG"))
    shown = {name: service.get(f"/inspections/{identifier}/{name}.jpg").content for name in NAMES}
    assert shown["picture"] != shown["heatmap"] != shown["overlay"] != shown["picture"]


def test_never_changes_and_is_not_sent_twice(service: TestClient) -> None:
    path = f"/inspections/{inspected(service, upload((64, 64), 'PNG'))}/thumbnail.jpg"
    first = service.get(path)
    assert "immutable" in first.headers["Cache-Control"]
    again = service.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("columns", [{"has_pictures": False}, {}])
def test_what_is_not_there_is_told(keyed: Keyed, columns: dict[str, Any]) -> None:
    [identifier] = add(keyed.app.state.history.database, answered(**columns))
    response = keyed.client.get(f"/inspections/{identifier}/picture.jpg", headers=keyed.show("viewer"))
    if columns:
        assert "Retention" in expect_problem(response, 404, "unknown-inspection")
    else:
        assert response.status_code == 410  # the row says that it is kept, and the disk has not got it


@pytest.mark.parametrize("name", ["other", "thumbnail.png", "..%2Fsource"])
def test_there_are_no_others(keyed: Keyed, name: str) -> None:
    [identifier] = add(keyed.app.state.history.database, answered())
    response = keyed.client.get(f"/inspections/{identifier}/{name}.jpg", headers=keyed.show("viewer"))
    assert response.status_code in (400, 404)
