"""Services with and without keys, and their answers."""

from pathlib import Path
from typing import Any

import httpx2
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.app.conftest import history_of
from tests.app.history.rows import add


def create_service(models: Path, **settings: Any) -> TestClient:
    """Create a service without keys; its history is beside its models."""
    return TestClient(create_app(Settings(models=models, history=models.parent / "history", **settings)))


def predict(client: TestClient, image: bytes, **query: str) -> dict[str, Any]:
    """Inspect an image and return the answer."""
    response = client.post("/v1/models/tiny/predict", content=image, params={"store": "false", **query})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def read_json(client: TestClient, path: str, **query: Any) -> dict[str, Any]:
    """Return the answer to a request that must succeed."""
    response = client.get(path, params=query)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def inspect_and_review(
    client: TestClient, image: bytes, verdict: str | None, kind: str | None = None, **query: str
) -> str:
    """Inspect an image, review it if there is a verdict, and return the inspection's id."""
    identifier: str = predict(client, image, store="true", **query)["inspection_id"]
    path = f"/v1/inspections/{identifier}"
    assert client.get(path).status_code == 200  # it is in the history
    if verdict is not None:
        review = {"verdict": verdict, "kind": kind, "expected_revision": 0}
        assert client.post(f"{path}/reviews", json=review).status_code == 201
    return identifier


def keep(client: TestClient, *rows: dict[str, Any]) -> None:
    """Add rows to the history of a service."""
    add(history_of(client).database, *rows)


def list_actions(
    client: TestClient, action: str, headers: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """Return the audit log's entries of ended actions, the earliest first."""
    response = client.get("/v1/audit", params={"action": action}, headers=headers)
    entries: list[dict[str, Any]] = response.json()["entries"]
    begun = {entry["number"] for entry in entries if entry["outcome"] == "begun"}
    ended = [entry for entry in reversed(entries) if entry["outcome"] != "begun"]
    assert {entry["detail"].pop("begun") for entry in ended} == begun
    return ended


def refusal_detail(response: httpx2.Response, status: int, name: str) -> str:
    """Return the detail of a problem, which must name no path."""
    body = response.json()
    assert (response.status_code, body["type"]) == (status, name), body
    assert "/tmp" not in response.text  # noqa: S108
    detail: str = body["detail"]
    return detail
