"""The report of a version: files that anybody who uploads a bundle has written."""

import hashlib
import json
from pathlib import Path

import httpx2
import pytest
from starlette.testclient import TestClient

from app.registry.report_files import MAX_REPORT_BYTES
from flows.fastflow.bundle import bundle, models_folder


@pytest.fixture
def folder(store: Path) -> Path:
    return models_folder.resolve(store, "tiny")


def add(folder: Path, name: str, data: bytes) -> None:
    """Put a file into a bundle as its maker would."""
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / bundle.MANIFEST).read_text())
    manifest["files"][name] = hashlib.sha256(data).hexdigest()
    (folder / bundle.MANIFEST).write_text(json.dumps(manifest))


def get(client: TestClient, folder: Path, name: str, **headers: str) -> httpx2.Response:
    return client.get(f"/v1/models/tiny/versions/{folder.name}/report/{name}", headers=headers)


def test_what_the_trainer_leaves_is_listed_and_given(client: TestClient, folder: Path) -> None:
    details = client.get(f"/v1/models/tiny/versions/{folder.name}").json()["details"]
    assert details["report"] == [
        "calibration_pictures.txt",
        "config.yaml",
        "data_check.json",
        "fit_pictures.txt",
        "highest.json",
        *(f"highest_{i}.webp" for i in range(5)),
        "metrics.jsonl",
    ]
    for name in details["report"]:
        response = get(client, folder, name)
        assert (response.status_code, response.content) == (200, (folder / "report" / name).read_bytes())
        kind = "image/webp" if name.endswith(".webp") else "text/plain; charset=utf-8"
        assert response.headers["content-type"] == kind


def test_a_page_of_a_bundle_is_shut_off(client: TestClient, folder: Path) -> None:
    add(folder, "report/report.html", b"<script>fetch('/v1/keys')</script>")
    response = get(client, folder, "report.html")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = response.headers["content-security-policy"].split("; ")
    assert {"sandbox", "default-src 'none'", "form-action 'none'", "frame-ancestors 'none'"} <= set(policy)
    assert not any("script" in part for part in policy)  # default-src holds for them
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ["drawing.svg", "noname"])
def test_what_a_browser_might_run_is_no_page(client: TestClient, folder: Path, name: str) -> None:
    add(folder, f"report/{name}", b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>")
    response = get(client, folder, name)
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in response.headers["content-security-policy"]


@pytest.mark.parametrize("name", ["nothing.txt", "..%2Fmanifest.json", "%00", "a" * 300])
def test_nothing_else_of_a_bundle_is_given(client: TestClient, folder: Path, name: str) -> None:
    response = get(client, folder, name)
    assert response.status_code in (400, 404)
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.one_server("changes the models folder by hand")
def test_a_file_that_was_changed_is_refused(client: TestClient, folder: Path) -> None:
    (folder / "report/config.yaml").write_text("other: true")
    assert (get(client, folder, "config.yaml").status_code) == 422
    add(folder, "report/large.txt", b" " * (MAX_REPORT_BYTES + 1))
    response = get(client, folder, "large.txt")
    assert (response.status_code, response.json()["type"]) == (422, "rejected-bundle")
