import json
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx

from app.http.uploads import MAX_SMALL
from app.main import create_app
from app.middleware.authentication import UPLOADS
from app.settings import Settings
from tests.app.conftest import Keyed, Serve
from tests.app.support.guard import SESSION_URL, assert_problem, fill_path


def test_route_with_a_body_other_than_json_is_an_upload(keyed: Keyed) -> None:
    uploads = {
        f"{method.upper()} {fill_path(path)}"
        for path, operations in keyed.app.openapi()["paths"].items()
        for method, operation in operations.items()
        if set(operation.get("requestBody", {}).get("content", ())) - {"application/json"}
    }
    assert len(uploads) >= 3
    assert [upload for upload in uploads if not UPLOADS.fullmatch(upload)] == []


def test_body_above_the_limit_is_refused(keyed: Keyed) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 10_000

    for path in ("/v1/keys", "/login", "/health/live"):
        for content in (b" " * (MAX_SMALL + 1), chunks()):
            response = keyed.client.post(path, content=content, headers=keyed.show("admin"))
            assert_problem(response, 413, "too-large")


def test_longest_note_fits_in_any_encoding(keyed: Keyed) -> None:
    body = json.dumps({"verdict": "good", "expected_revision": 0, "note": "\U0001f50d" * 4000}, indent=4)
    headers = keyed.show("admin") | {"Content-Type": "application/json"}
    path = "/v1/inspections/0193a6b2-7c1e-7d4f-8a53-5d1d3b7a8c11/reviews"
    assert_problem(keyed.client.post(path, content=body, headers=headers), 404, "unknown-inspection")


def test_key_is_checked_before_the_body(keyed: Keyed) -> None:
    response = keyed.client.post("/v1/keys", content=b" " * (MAX_SMALL + 1))
    assert_problem(response, 401, "unauthenticated")


def test_slow_body_is_aborted_without_blocking_others(tmp_path: Path, serve_http: Serve) -> None:
    (tmp_path / "models").mkdir()
    app = create_app(Settings(models=tmp_path / "models", upload_idle_seconds=0.5))
    with serve_http(app) as url, httpx.Client(base_url=url, trust_env=False) as client:
        with socket.create_connection(("127.0.0.1", client.base_url.port or 0), timeout=60) as connection:
            connection.sendall(b"POST /v1/keys HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
            assert client.get(SESSION_URL).status_code == 200
            answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_body_with_protocol_upgrade_is_refused_with_advice(keyed: Keyed) -> None:
    """Java's HttpClient asks for HTTP/2 in its first request."""
    headers = keyed.show("line") | {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c"}
    response = keyed.client.post("/v1/models/tiny/predict", content=b"x", headers=headers)
    assert "HTTP_1_1" in assert_problem(response, 400, "invalid-request")
