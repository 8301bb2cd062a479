import re
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from app.main import create_app
from app.security_headers import SecurityHeaders
from app.settings import Settings
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
    assert "strict-transport-security" not in response.headers


def test_are_on_every_kind_of_answer(keyed: Keyed, monkeypatch: pytest.MonkeyPatch) -> None:
    client, admin = keyed.client, keyed.show("admin")
    for status, response in {
        200: client.get("/health/live"),
        201: client.post("/v1/keys", json={"role": "line", "name": "l"}, headers=admin),
        401: client.get("/v1/keys"),
        403: client.get("/v1/keys", headers=keyed.show("line")),
        404: client.get("/nothing", headers=admin),
        405: client.post("/health/live"),
        413: client.post("/login", content=b" " * 500_000),
        400: client.post("/login", content=b"{"),
    }.items():
        assert response.status_code == status
        expect_headers(response)
    monkeypatch.delattr(keyed.app.state, "keyring")
    response = client.get("/v1/keys", headers=admin)
    assert response.status_code == 500
    expect_headers(response)


@pytest.mark.parametrize(
    ("scheme", "seconds", "told"),
    [("https", 31536000, "max-age=31536000"), ("https", 0, None), ("http", 31536000, None)],
)
def test_only_under_tls_and_only_where_it_is_wanted_the_browser_is_told_to_stay_there(
    tmp_path: Path, scheme: str, seconds: int, told: str | None
) -> None:
    (tmp_path / "models").mkdir()
    settings = Settings(models=tmp_path / "models", history=tmp_path / "history", hsts_seconds=seconds)
    with TestClient(create_app(settings), base_url=f"{scheme}://127.0.0.1") as client:
        assert client.get("/health/live").headers.get("Strict-Transport-Security") == told


def test_what_a_route_has_set_stays() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = {"Cache-Control": "private, max-age=60", "Content-Security-Policy": "default-src 'self'"}
        await Response("x", headers=headers)(scope, receive, send)

    response = TestClient(SecurityHeaders(app, 0)).get("/")
    assert response.headers["Cache-Control"] == "private, max-age=60"
    assert response.headers["Content-Security-Policy"] == "default-src 'self'"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_the_page_for_people_may_load_what_it_names_and_nothing_else(keyed: Keyed) -> None:
    """All of it the service's own; and no script, for keys are typed in at this origin."""
    response = keyed.client.get("/docs")
    policy = {
        name: sources
        for name, *sources in (
            part.split() for part in response.headers["Content-Security-Policy"].split(";")
        )
    }
    assert policy["default-src"] == policy["frame-ancestors"] == ["'none'"]
    assert policy["style-src"] == policy["img-src"] == ["'self'"]
    assert {"script-src", "connect-src"} & set(policy) == set()
    assert {source for sources in policy.values() for source in sources} == {"'none'", "'self'"}
    assert not re.search(r"<script|<style|style=|\son\w+=|javascript:", response.text)
    loaded = re.findall(r'<(?:link|img) [^>]*(?:href|src)="([^"]+)"', response.text)
    assert {address.rpartition("/")[2] for address in loaded} == {"icon.svg", "base.css", "reference.css"}
    for address in loaded:
        assert address.startswith("/static/")
        assert keyed.client.get(address).status_code == 200
