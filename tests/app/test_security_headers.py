from typing import Any

import pytest
from starlette.responses import Response
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from app.security_headers import SecurityHeaders
from tests.app.conftest import Keyed

EXPECTED = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def expect_headers(response: Any) -> None:
    assert {name: response.headers.get(name) for name in EXPECTED} == EXPECTED


def test_are_on_every_kind_of_answer(keyed: Keyed, monkeypatch: pytest.MonkeyPatch) -> None:
    client, admin = keyed.client, keyed.show("admin")
    for status, response in {
        200: client.get("/health/live"),
        401: client.get("/v1/keys"),
        404: client.get("/nothing", headers=admin),
        405: client.post("/health/live"),
        413: client.post("/login", content=b" " * 500_000),
    }.items():
        assert response.status_code == status
        expect_headers(response)
    monkeypatch.delattr(keyed.app.state, "keyring")
    response = client.get("/v1/keys", headers=admin)
    assert response.status_code == 500
    expect_headers(response)


def test_what_a_route_has_set_stays() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = {"Cache-Control": "private, max-age=60", "Content-Security-Policy": "default-src 'self'"}
        await Response("x", headers=headers)(scope, receive, send)

    response = TestClient(SecurityHeaders(app)).get("/")
    assert response.headers["Cache-Control"] == "private, max-age=60"
    assert response.headers["Content-Security-Policy"] == "default-src 'self'"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
