"""Helpers for tests of the guard."""

import re
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

from app.auth.sessions import CSRF_HEADER
from app.errors.problem_responses import MEDIA_TYPE
from tests.app.conftest import Keyed

SESSION_URL = "/v1/session"


def assert_problem(response: Any, status: int, kind: str) -> str:
    """Assert that a response is a complete problem; return its detail."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == MEDIA_TYPE
    body = response.json()
    assert body["type"] == kind
    assert body["request_id"] == response.headers["X-Request-ID"]
    assert response.headers["Cache-Control"] == "no-store"
    assert ("WWW-Authenticate" in response.headers) == (status == 401)
    assert ("Retry-After" in response.headers) == (status == 429)
    detail: str = body["detail"]
    return detail


def documented_routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Yield method and path of every documented route."""
    for path, operations in app.openapi()["paths"].items():
        yield from ((method.upper(), path) for method in operations)


def fill_path(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "other", path)


def log_in(keyed: Keyed, role: str) -> dict[str, str]:
    """Log in and return the headers of a write; the client keeps the cookie."""
    response = keyed.client.post("/login", json={"key": keyed.keys[role]})
    assert response.status_code == 200
    return {CSRF_HEADER: response.json()["csrf_token"]}
