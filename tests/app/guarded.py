"""What tests of the guard share."""

import re
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

from app.auth.sessions import CSRF_HEADER
from app.errors.problem_responses import MEDIA_TYPE
from tests.app.conftest import Keyed

WHO = "/v1/session"


def expect_problem(response: Any, status: int, kind: str) -> str:
    """Check that an answer is a problem with all that every answer has; gives its detail."""
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


def routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Method and path of every documented route of the service."""
    for path, operations in app.openapi()["paths"].items():
        yield from ((method.upper(), path) for method in operations)


def filled(path: str) -> str:
    """A path with something in the place of its parameters."""
    return re.sub(r"\{[^}]*\}", "other", path)


def log_in(keyed: Keyed, role: str) -> dict[str, str]:
    """Headers of a write with a session, whose cookie the client keeps."""
    response = keyed.client.post("/login", json={"key": keyed.keys[role]})
    assert response.status_code == 200
    return {CSRF_HEADER: response.json()["csrf_token"]}
