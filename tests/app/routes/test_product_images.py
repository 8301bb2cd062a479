"""Images of a dataset over REST: what is stored, what is refused with its reason, and who may."""

import hashlib
import io
from typing import Any

import httpx2
import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.products.intake import MIN_SIDE, THUMBNAIL_SIDE
from tests.app.conftest import history_of, remove_files
from tests.app.support.services import create_service, list_actions, refusal_detail
from tests.conftest import picture, png
from tests.flows.fastflow.imaging import test_decoder as images
from tests.flows.fastflow.saving import save

Images = dict[str, list[bytes]]
URL = "/v1/products/cap/images"


@pytest.fixture
def cap(client: TestClient) -> TestClient:
    """A service with the product "cap"."""
    assert client.post("/v1/products", json={"name": "cap", "kinds": ["scratch"]}).status_code == 201
    return client


def send(client: TestClient, *files: bytes | tuple[str, bytes], **query: str) -> httpx2.Response:
    parts = [
        ("file", file if isinstance(file, tuple) else (f"{i}.png", file)) for i, file in enumerate(files)
    ]
    return client.post(URL, files=parts, params=query)


def stored(client: TestClient, *files: bytes, **query: str) -> list[dict[str, Any]]:
    response = send(client, *files, **query)
    assert response.status_code == 200, response.text
    assert response.json()["counts"] == {"stored": len(files)}
    return [item["image"] for item in response.json()["items"]]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


REFUSED = {
    "undecodable": images.EXACT["png"][:99],
    "unsupported": b"a text that someone named .png",
    "too-small": save(Image.new("RGB", (4000, MIN_SIDE - 1)), "PNG"),
    "too-large": images.claiming("png", 60_000, 60_000),
}


def test_images_are_stored_listed_and_returned(cap: TestClient, tiny_images: Images) -> None:
    good = tiny_images["good"][:3]
    first, *_ = stored(cap, *good, source="camera", part_id="P-1")
    assert first["sha256"] == sha256(good[0])
    assert (first["name"], first["width"], first["height"], first["bytes"]) == ("0.png", 64, 64, len(good[0]))
    assert (first["label"], first["kind"], first["excluded"], first["findings"]) == ("good", None, False, [])
    assert (first["source"], first["part_id"], first["inspection_id"]) == ("camera", "P-1", None)
    stored(cap, tiny_images["defect"][0], label="defect", kind="scratch")
    page = cap.get(URL, params={"limit": 2}).json()
    assert (page["total"], [image["label"] for image in page["images"]]) == (4, ["defect", "good"])
    rest = cap.get(URL, params={"cursor": page["next_cursor"]}).json()
    assert [image["sha256"] for image in rest["images"]] == [sha256(good[1]), sha256(good[0])]
    assert rest["next_cursor"] is None
    assert cap.get(URL, params={"kind": "scratch", "excluded": "false"}).json()["total"] == 1
    assert cap.get(first["links"]["self"]).json() == first
    counts = cap.get("/v1/products/cap").json()["images"]
    assert (counts["good"], counts["defect"]) == (3, 1)
    entries = list_actions(cap, "product.add-images")
    assert [entry["detail"]["images"] for entry in entries] == [{"stored": 3}, {"stored": 1}]


def test_source_and_thumbnail_never_change(cap: TestClient) -> None:
    data = save(Image.new("L", (1000, 600), 90), "TIFF")
    [image] = stored(cap, data)
    source, thumbnail = (cap.get(image["links"][name]) for name in ("image", "thumbnail"))
    assert (source.content, source.headers["content-type"]) == (data, "image/tiff")
    with Image.open(io.BytesIO(thumbnail.content)) as small:
        assert (small.format, small.size) == ("JPEG", (THUMBNAIL_SIDE, round(THUMBNAIL_SIDE * 0.6)))
    for answer in (source, thumbnail):
        assert "immutable" in answer.headers["Cache-Control"]
        again = cap.get(str(answer.url), headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.one_server("thumbnails are on the disk of one server")
def test_lost_thumbnail_is_drawn_again(cap: TestClient, tiny_images: Images) -> None:
    [image] = stored(cap, tiny_images["good"][0])
    path, folder = image["links"]["thumbnail"], history_of(cap).folder
    before = cap.get(path).content
    [file] = (folder / "thumbnails").rglob("*.jpg")
    file.unlink()
    assert cap.get(path).content == before
    assert file.exists()


@pytest.mark.one_server("damages files of the history folder")
def test_lost_or_damaged_file_is_reported(cap: TestClient, tiny_images: Images) -> None:
    [image] = stored(cap, tiny_images["good"][0])
    for file in history_of(cap).folder.rglob(f"{image['sha256']}.*"):
        file.write_bytes(b"x") if file.suffix == ".png" else file.unlink()
    for name in ("image", "thumbnail"):
        refusal_detail(cap.get(image["links"][name]), 410, "files-lost")


def test_duplicate_is_answered_with_the_known_image(cap: TestClient, tiny_images: Images) -> None:
    [image] = stored(cap, tiny_images["good"][0])
    body = send(cap, ("other.png", tiny_images["good"][0]), tiny_images["good"][1], label="defect").json()
    assert [item["status"] for item in body["items"]] == ["duplicate", "stored"]
    assert body["items"][0]["image"] == image  # its label stays
    assert body["product"]["images"]["good"] == 1


def test_uploads_that_are_no_use_are_refused_one_by_one(cap: TestClient) -> None:
    valid = [png(picture(0)), save(Image.new("RGB", (MIN_SIDE, MIN_SIDE)), "PNG")]
    files = [("before.png", valid[0]), *((f"{name}.png", data) for name, data in REFUSED.items())]
    response = send(cap, *files, ("after.png", valid[1]))
    assert response.status_code == 200, response.text
    first, *refused, last = response.json()["items"]
    assert (first["status"], last["status"]) == ("stored", "stored")
    for item, (status, data) in zip(refused, REFUSED.items(), strict=True):
        assert (item["filename"], item["status"], item["image"]) == (f"{status}.png", status, None)
        problem = item["problem"]
        assert problem["detail"].endswith(".")
        if status != "too-small":  # predict has no such limit
            predicted = cap.post("/v1/models/tiny/predict", content=data).json()
            assert (predicted["type"], predicted["detail"]) == (problem["type"], problem["detail"])
    assert cap.get(URL).json()["total"] == 2
    [entry] = list_actions(cap, "product.add-images")
    assert entry["detail"]["images"] == response.json()["counts"]


def test_odd_file_names_are_kept_readable(cap: TestClient, tiny_images: Images) -> None:
    names = ["../../etc/passwd", "a\u202eb.png", "x" * 300 + ".png", "<img src=x onerror=alert(1)>.png"]
    body = send(cap, *zip(names, tiny_images["good"], strict=False)).json()
    kept = [item["image"]["name"] for item in body["items"]]
    assert kept[0] == "../../etc/passwd"
    assert all(name.isprintable() and len(name) <= 256 for name in kept)


def test_request_that_is_no_upload_is_refused(cap: TestClient, tiny_images: Images) -> None:
    image = tiny_images["good"][0]
    refusal_detail(cap.post(URL, content=image), 415, "unsupported-media-type")
    refusal_detail(cap.post(URL, files={"station": (None, b"1"), "file": image}), 400, "invalid-request")
    refusal_detail(send(cap, image, label="defect", kind="dent"), 400, "invalid-request")
    refusal_detail(send(cap, image, kind="scratch"), 400, "invalid-request")
    refusal_detail(send(cap, image, colour="red"), 400, "invalid-request")
    refusal_detail(send(cap, *[b"x"] * 101), 413, "too-large")
    unknown = cap.post("/v1/products/cup/images", files={"file": image})
    refusal_detail(unknown, 404, "unknown-product")
    assert cap.get(URL).json()["total"] == 0


def test_full_dataset_refuses_single_images(tiny_images: Images, tmp_path: Any) -> None:
    (tmp_path / "models").mkdir()
    with create_service(tmp_path / "models", product_images=1) as client:
        client.post("/v1/products", json={"name": "cap"})
        body = send(client, *tiny_images["good"][:2], tiny_images["good"][0]).json()
    assert [item["status"] for item in body["items"]] == ["stored", "full", "duplicate"]
    assert "FLOWGAUGE_PRODUCT_IMAGES" in body["items"][1]["problem"]["detail"]


def test_labels_are_changed_and_undone(cap: TestClient, tiny_images: Images) -> None:
    first, second = stored(cap, *tiny_images["good"][:2])
    changes = [
        {"image": first["sha256"], "label": "defect", "kind": "scratch"},
        {"image": second["sha256"], "excluded": True},
    ]
    changed = cap.patch(URL, json={"changes": changes})
    assert changed.status_code == 200, changed.text
    after = [(one["kind"], one["excluded"]) for one in changed.json()["images"]]
    assert after == [("scratch", False), (None, True)]
    undone = cap.patch(URL, json={"changes": changed.json()["before"]}).json()["images"]
    assert [(one["label"], one["kind"], one["excluded"]) for one in undone] == [("good", None, False)] * 2
    refusal_detail(cap.patch(URL, json={"changes": []}), 400, "invalid-request")
    entries = list_actions(cap, "product.label")
    assert [entry["detail"] for entry in entries] == [
        {"images": 2, "first": sent} for sent in (changes, changed.json()["before"])
    ]


def test_deleted_image_is_gone(cap: TestClient, tiny_images: Images) -> None:
    [image] = stored(cap, tiny_images["good"][0])
    assert cap.delete(image["links"]["self"]).status_code == 204
    for name in ("self", "image", "thumbnail"):
        refusal_detail(cap.get(image["links"][name]), 404, "unknown-product")
    refusal_detail(cap.delete(image["links"]["self"]), 404, "unknown-product")
    entries = list_actions(cap, "product.delete-image")
    assert {one["detail"]["image"] for one in entries} == {image["sha256"]}
    assert [one["outcome"] for one in entries] == ["done", "refused"]
    assert stored(cap, tiny_images["good"][0])


def test_retention_keeps_dataset_images(cap: TestClient, tiny_images: Images) -> None:
    data = tiny_images["good"][0]
    assert cap.post("/v1/models/tiny/predict", content=data).status_code == 200
    [image] = stored(cap, data)
    remove_files(history_of(cap))
    assert cap.get(image["links"]["image"]).content == data


@pytest.mark.one_server("one of them drains")
def test_draining_server_takes_no_images(cap: TestClient, tiny_images: Images) -> None:
    app: Any = cap.app
    app.state.draining.begun = True
    refusal_detail(send(cap, tiny_images["good"][0]), 503, "draining")
