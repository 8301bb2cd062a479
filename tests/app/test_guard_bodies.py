import json
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from app.guard import UPLOADS
from app.main import create_app
from app.settings import Settings
from app.small_bodies import MAX_BYTES, MAX_OPEN_BYTES, MAX_REGION_BYTES
from tests.app.conftest import Keyed, Serve
from tests.app.guarded import WHO, expect_problem, filled


def test_every_route_with_another_body_than_json_is_an_upload(keyed: Keyed) -> None:
    document = keyed.client.get("/openapi.json").json()
    uploads = {
        f"{method.upper()} {filled(path)}"
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if set(operation.get("requestBody", {}).get("content", ())) - {"application/json"}
    }
    assert len(uploads) >= 3
    assert [upload for upload in uploads if not UPLOADS.fullmatch(upload)] == []


def test_a_body_beyond_the_cap_is_refused_whatever_it_says(keyed: Keyed) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 10_000

    for path in ("/v1/keys", "/login", "/health/live", "/v1/session"):
        for content in (b" " * (MAX_BYTES + 1), chunks()):
            response = keyed.client.post(path, content=content, headers=keyed.show("admin"))
            expect_problem(response, 413, "too-large")
    assert (
        keyed.client.request(
            "GET", "/v1/keys", content=b" " * MAX_BYTES, headers=keyed.show("admin")
        ).status_code
        == 200
    )


def test_a_region_may_have_more_than_others(keyed: Keyed) -> None:
    region = "/v1/models/tiny/region"
    headers = keyed.show("admin") | {"Content-Type": "application/json"}
    largest = b"{" + b" " * (MAX_REGION_BYTES - 2) + b"}"
    expect_problem(keyed.client.put(region, content=largest, headers=headers), 400, "invalid-request")
    expect_problem(keyed.client.put(region, content=largest + b" ", headers=headers), 413, "too-large")
    for method, path in (("PATCH", "/v1/models/tiny/thresholds"), ("DELETE", region), ("POST", "/v1/keys")):
        response = keyed.client.request(method, path, content=largest, headers=headers)
        expect_problem(response, 413, "too-large")


def test_the_longest_note_comes_in_however_it_is_written(keyed: Keyed) -> None:
    body = json.dumps({"verdict": "good", "expected_revision": 0, "note": "\U0001f50d" * 4000}, indent=4)
    assert len(body) > 48_000
    headers = keyed.show("admin") | {"Content-Type": "application/json"}
    path = "/v1/inspections/0193a6b2-7c1e-7d4f-8a53-5d1d3b7a8c11/reviews"
    expect_problem(keyed.client.post(path, content=body, headers=headers), 404, "unknown-inspection")


def test_who_has_shown_nothing_sends_next_to_nothing(keyed: Keyed) -> None:
    """A thousand connections with a body each that never ends would be a gigabyte."""
    for path in ("/login", "/health/live", "/docs", "/static/page.css"):
        response = keyed.client.post(path, content=b" " * (MAX_OPEN_BYTES + 1))
        expect_problem(response, 413, "too-large")
    response = keyed.client.post("/login", json={"key": "x" * 200})
    expect_problem(response, 401, "unauthenticated")


def test_who_has_no_key_sends_no_body(keyed: Keyed) -> None:
    def endless() -> Iterator[bytes]:
        yield b"x"
        raise AssertionError("somebody reads it")

    response = keyed.client.post("/v1/keys", content=endless())
    expect_problem(response, 401, "unauthenticated")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 60_000,
        b'{"key": ' + b"9" * 60_000 + b"}",
        b"[" * 2000,
        b'{"key": "\\ud800"}',
        b"\xff",
        b"{",
        b"null",
        b"[]",
    ],
)
def test_hostile_json_is_an_invalid_request(keyed: Keyed, body: bytes) -> None:
    for path in ("/login", "/v1/keys"):
        headers = keyed.show("admin") | {"Content-Type": "application/json"}
        response = keyed.client.post(path, content=body, headers=headers)
        if path == "/login" and len(body) > MAX_OPEN_BYTES:
            expect_problem(response, 413, "too-large")
        else:
            expect_problem(response, 400, "invalid-request")


def listen(connection: socket.socket, wait: float = 10) -> bytes:
    """What the server says, until it has answered, closes, or is silent for long."""
    connection.settimeout(wait)
    answer = b""
    try:
        while b"request_id" not in answer and b"key_id" not in answer and (piece := connection.recv(65536)):
            answer += piece
    except TimeoutError:
        pass
    return answer


def raw(client: httpx.Client, data: bytes, wait: float = 10) -> bytes:
    """What the server says to bytes."""
    with socket.create_connection(("127.0.0.1", client.base_url.port or 0)) as connection:
        connection.sendall(data)
        return listen(connection, wait)


def test_lies_about_the_length_are_not_believed(keyless: httpx.Client) -> None:
    head = b"POST /v1/keys HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for lie in (
        b"Content-Length: 99999999999999999999\r\n\r\n",
        b"Content-Length: 300000\r\n\r\n{}",
        b"Transfer-Encoding: chunked\r\n\r\n"
        + b"10000\r\n"
        + b" " * 65536
        + b"\r\n"
        + b"FFFFFF\r\n"
        + b" " * 400_000,
    ):
        assert raw(keyless, head + lie).startswith((b"HTTP/1.1 413 ", b"HTTP/1.1 400 ")), lie[:40]
    for lie in (b"Content-Length: -1\r\n\r\n", b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"):
        assert raw(keyless, head + lie).startswith(b"HTTP/1.1 400 "), lie
    # What comes after the length is another request, which must show a key of its own.
    assert keyless.post("/v1/keys", json={"role": "admin", "name": "first"}).status_code == 201
    smuggled = head + b"Content-Length: 0\r\n\r\nGET /v1/keys HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert b"HTTP/1.1 200" not in raw(keyless, smuggled, 1)


def test_a_slow_body_is_given_up_and_holds_nobody_up(tmp_path: Path, serve_http: Serve) -> None:
    (tmp_path / "models").mkdir()
    app = create_app(Settings(models=tmp_path / "models", upload_idle_seconds=3))
    with (
        serve_http(app) as url,
        httpx.Client(base_url=url, trust_env=False) as client,
        ExitStack() as stack,
    ):
        sockets = [
            stack.enter_context(socket.create_connection(("127.0.0.1", client.base_url.port or 0)))
            for _ in range(50)
        ]
        for connection in sockets:
            connection.sendall(b"POST /v1/keys HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        assert client.get(WHO).status_code == 200
        assert select.select(sockets, [], [], 0)[0] == []  # none of them has been given up yet
        for connection in sockets:
            answer = listen(connection)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"did not arrive within 3 s" in answer
