"""Imports of inspections and folders into a dataset, and the findings of its check over REST."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from app.products import imports
from app.products.folders import record_check
from app.products.products import Products
from tests.app.conftest import history_of, keyed_service, remove_files
from tests.app.support.services import create_service, inspect_and_review, list_actions, refusal_detail
from tests.conftest import picture, png

Images = dict[str, list[bytes]]
URL = "/v1/products/cap/images"


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    folder = tmp_path / "allowed"
    folder.mkdir()
    return folder


@pytest.fixture
def cap(store: Path, allowed: Path) -> Iterator[TestClient]:
    """A service with the product "cap" that may read a folder."""
    with create_service(store, import_folders=f"/nowhere, {allowed}") as client:
        assert client.post("/v1/products", json={"name": "cap"}).status_code == 201
        yield client


def put(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(picture(number)))


def bring(client: TestClient, **body: Any) -> httpx2.Response:
    return client.post(f"{URL}:import", json=body)


def brought(client: TestClient, **body: Any) -> dict[str, tuple[str, str | None, str | None]]:
    """Status, label and kind by file name."""
    response = bring(client, **body)
    assert response.status_code == 200, response.text
    return {
        item["filename"]: (item["status"], *((image["label"], image["kind"]) if image else (None, None)))
        for item in response.json()["items"]
        for image in [item["image"]]
    }


def test_reviews_become_labels(cap: TestClient, tiny_images: Images) -> None:
    good = inspect_and_review(cap, tiny_images["good"][0], "good", part_id="P-1")
    assert cap.post("/v1/products", json={"name": "tiny", "kinds": ["spot"]}).status_code == 201
    bad = inspect_and_review(cap, tiny_images["defect"][0], "defect", "spot")
    plain = inspect_and_review(cap, tiny_images["good"][1], None)
    unknown = "0193a6b2-7c1e-7d4f-8a53-5d1d3b7a8c11"
    assert brought(cap, inspections=[good, bad, plain, unknown]) == {
        good: ("stored", "good", None),
        bad: ("stored", "defect", "spot"),
        plain: ("unlabelled", None, None),
        unknown: ("failed", None, None),
    }
    assert brought(cap, inspections=[plain], label="good") == {plain: ("stored", "good", None)}
    [image] = [one for one in cap.get(URL).json()["images"] if one["inspection_id"] == good]
    assert (image["source"], image["part_id"]) == ("inspection", "P-1")
    assert cap.get(image["links"]["image"]).content == tiny_images["good"][0]
    counts = list_actions(cap, "product.import")[0]["detail"]["images"]
    assert counts == {"stored": 2, "unlabelled": 1, "failed": 1}


def test_deleted_image_of_an_inspection_is_reported(cap: TestClient, tiny_images: Images) -> None:
    gone = inspect_and_review(cap, tiny_images["good"][0], None)
    remove_files(history_of(cap))
    assert brought(cap, inspections=[gone], label="good") == {gone: ("failed", None, None)}


def test_inspection_of_another_category_is_unknown_to_a_key(
    store: Path, tmp_path: Path, tiny_images: Images
) -> None:
    with keyed_service(store, tmp_path / "history") as keyed:
        operator = keyed.show("operator")
        body = {"role": "operator", "name": "cap only", "categories": ["cap"]}
        key = keyed.client.post("/v1/keys", json=body, headers=keyed.show("admin")).json()["key"]
        keyed.client.headers |= keyed.show("line")
        answer = keyed.client.post("/v1/models/tiny/predict", content=tiny_images["good"][0]).json()
        assert keyed.client.post("/v1/products", json={"name": "cap"}, headers=operator).status_code == 201
        limited = {"X-API-Key": key}
        sent = {"inspections": [answer["inspection_id"]], "label": "good"}
        [item] = keyed.client.post(f"{URL}:import", json=sent, headers=limited).json()["items"]
        assert (item["status"], item["problem"]["type"]) == ("failed", "unknown-inspection")


def test_folder_names_become_labels(cap: TestClient, allowed: Path) -> None:
    put(allowed / "cap", "train/good/0.png", "test/good/1.PNG", "test/scratch/2.png", "notes/3.png", "4.png")
    put(allowed / "cap", "ground_truth/scratch/2_mask.png")
    (allowed / "cap" / "bad").mkdir()
    (allowed / "cap" / "bad" / "6.png").write_bytes(png(picture(60)))
    found = brought(cap, folder="cap")
    assert found == {
        "train/good/0.png": ("stored", "good", None),
        "test/good/1.PNG": ("stored", "good", None),
        "test/scratch/2.png": ("stored", "defect", "scratch"),
        "notes/3.png": ("unlabelled", None, None),
        "4.png": ("stored", "good", None),
        "bad/6.png": ("stored", "defect", None),
    }
    assert cap.get("/v1/products/cap").json()["kinds"] == ["scratch"]
    images = {image["name"]: image for image in cap.get(URL).json()["images"]}
    assert images["test/scratch/2.png"]["source"] == "folder"
    kind = brought(cap, folder=str(allowed / "cap" / "test" / "scratch"))
    assert kind == {"2.png": ("duplicate", "defect", "scratch")}
    named = brought(cap, folder="cap/notes", label="defect", kind="scratch")
    assert named == {"3.png": ("stored", "defect", "scratch")}


def test_folder_is_imported_page_by_page(
    cap: TestClient, allowed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "MAX_IMPORTED", 2)
    put(allowed, "a.png", "b.png", "c.png")
    first = bring(cap, folder=".").json()
    assert [item["filename"] for item in first["items"]] == ["a.png", "b.png"]
    assert first["next_cursor"] == "b.png"
    second = bring(cap, folder=".", cursor="b.png").json()
    assert ([item["filename"] for item in second["items"]], second["next_cursor"]) == (["c.png"], None)


def test_parts_file_names_the_parts(cap: TestClient, allowed: Path) -> None:
    put(allowed / "cap" / "good", "p1_a.png", "p1_b.png", "other.png")
    (allowed / "cap" / "parts.txt").write_text("^(?:(p[0-9])_)?")
    brought(cap, folder="cap/good")
    parts = {image["name"]: image["part_id"] for image in cap.get(URL).json()["images"]}
    assert parts == {"p1_a.png": "p1", "p1_b.png": "p1", "other.png": None}
    (allowed / "cap" / "parts.txt").write_text("(")
    assert "parts.txt" in refusal_detail(bring(cap, folder="cap"), 400, "invalid-request")


def test_nothing_outside_the_allowed_folders_is_read(cap: TestClient, allowed: Path, tmp_path: Path) -> None:
    put(tmp_path / "secret", "secret.png")
    put(allowed, "own.png")
    (allowed / "out").symlink_to(tmp_path / "secret")
    (allowed / "out.png").symlink_to(tmp_path / "secret" / "secret.png")
    (allowed / "in.png").symlink_to(allowed / "own.png")
    os.mkfifo(allowed / "pipe.png")
    for folder in (tmp_path / "secret", "../secret", "out", allowed / "../secret", "/", "x" * 200, "own.png"):
        refusal_detail(bring(cap, folder=str(folder)), 400, "invalid-request")
    statuses = {name: found[0] for name, found in brought(cap, folder=".", label="good").items()}
    links = ("out/secret.png", "out.png", "in.png")
    assert statuses == {"own.png": "stored", **dict.fromkeys(links, "failed")}
    assert cap.get(URL).json()["total"] == 1


def test_without_the_setting_no_folder_is_read(store: Path, tmp_path: Path) -> None:
    put(tmp_path / "images", "a.png")
    with create_service(store) as client:
        client.post("/v1/products", json={"name": "cap"})
        detail = refusal_detail(bring(client, folder=str(tmp_path / "images")), 400, "invalid-request")
        assert "FLOWGAUGE_IMPORT_FOLDERS" in detail
        refusal_detail(bring(client, folder="."), 400, "invalid-request")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"folder": ".", "inspections": ["x"]},
        {"folder": ".", "kind": "scratch"},
        {"folder": ".", "label": "good", "kind": "scratch"},
        {"folder": ".", "label": "defect", "kind": "unknown"},
        {"inspections": []},
        {"inspections": ["x"] * 101},
        {"folder": "a\0b"},
    ],
)
def test_impossible_import_is_refused(cap: TestClient, body: dict[str, Any]) -> None:
    refusal_detail(bring(cap, **body), 400, "invalid-request")


def test_findings_are_counted_by_kind(cap: TestClient, allowed: Path) -> None:
    put(allowed, "a.png", "b.png", "c.png")
    bring(cap, folder=".")
    [last, _, first] = cap.get(URL).json()["images"]
    app: Any = cap.app
    products: Products = app.state.products
    found = {"kind": "outlier", "severity": "warning", "measure": 5.4, "message": "unlike the others"}
    findings = [{**found, "files": [f"train/good/{one['sha256']}.png"]} for one in (first, last)]
    record_check(products, "cap", {"findings": findings})
    assert cap.get("/v1/products/cap").json()["findings"] == {"outlier": 2}
    marked = cap.get(URL, params={"finding": "outlier"}).json()
    assert [image["name"] for image in marked["images"]] == ["c.png", "a.png"]
    assert marked["images"][0]["findings"] == [{**found, "others": []}]
    cap.patch(URL, json={"changes": [{"image": last["sha256"], "excluded": True}]})
    assert cap.get(URL, params={"finding": "outlier"}).json()["total"] == 2
    product = cap.get("/v1/products/cap").json()
    assert (product["findings"], product["images"]["findings"]) == ({"outlier": 1}, 1)
