import asyncio
import json
import logging

import pytest
from fastapi import FastAPI
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.testclient import TestClient

from app.auth.permissions import Caller
from app.errors import problem_responses, problems
from app.middleware.request_context import RequestContext
from app.scheduling.draining import Draining
from app.schemas.access import Role
from app.telemetry import logs
from app.telemetry.metrics import Telemetry
from app.web.page import error_page

INSIDE = "/srv/inside/path"


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry("0")


@pytest.fixture
def draining() -> Draining:
    return Draining()


@pytest.fixture
def client(telemetry: Telemetry, draining: Draining) -> TestClient:
    app = FastAPI(redirect_slashes=False)

    @app.get("/fine")
    async def fine() -> str:
        return "fine"

    @app.get("/broken")
    async def broken() -> str:
        raise RuntimeError(f"no such file {INSIDE}")

    @app.get("/late")
    async def late() -> StreamingResponse:
        def body() -> object:
            yield b"begun"
            raise RuntimeError("too late for another answer")

        return StreamingResponse(body())  # type: ignore[arg-type]

    @app.get("/parts/{part_id}")
    async def part(part_id: str, request: Request) -> str:
        request.state.caller = Caller("0123456789abcdef", "line 3", Role.LINE)
        return part_id

    @app.get("/full")
    async def full() -> None:
        raise problems.Problem("queue-full", "64 images are waiting.")

    @app.get("/noted")
    async def noted() -> None:
        logging.getLogger("flowgauge.elsewhere").info("noted")
        await asyncio.to_thread(logging.getLogger("flowgauge.elsewhere").info, "noted in a thread")

    @app.get("/kept")
    async def kept() -> Response:
        return Response(
            headers={"Cache-Control": "max-age=60", "Content-Security-Policy": "default-src 'self'"}
        )

    @app.get("/left")
    async def left() -> None:
        raise ClientDisconnect

    app.add_middleware(RequestContext, telemetry=telemetry, draining=draining)
    problem_responses.install_handlers(app, error_page)
    return TestClient(app)


@pytest.mark.parametrize("given", ["line3-000123", "A.b_c:d@e+f=g/h-i", "x" * 128])
def test_valid_id_is_kept(client: TestClient, given: str) -> None:
    assert client.get("/fine", headers={"X-Request-ID": given}).headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, 'a"b', "é"])
def test_invalid_id_is_replaced(client: TestClient, given: str) -> None:
    headers = [(b"X-Request-ID", given.encode("latin-1"))]
    ids = [client.get("/fine", headers=headers).headers["X-Request-ID"] for _ in range(2)]
    assert [len(one) for one in ids] == [32, 32]
    assert ids[0] != ids[1]


def test_started_response_is_cut_off(client: TestClient) -> None:
    with pytest.raises(RuntimeError, match="too late"):
        client.get("/late")


@pytest.fixture(autouse=True)
def _as_it_is_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO, "flowgauge")
    monkeypatch.setattr(caplog.handler, "formatter", logs.TextFormatter())


def test_unexpected_error_is_internal_without_details(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    response = client.get("/broken", headers={"X-Request-ID": "find-me"})
    assert response.status_code == 500
    assert response.headers["content-type"] == problem_responses.MEDIA_TYPE
    assert response.json()["type"] == "internal"
    assert response.json()["request_id"] == "find-me"
    assert INSIDE not in response.text
    assert "RuntimeError" not in response.text
    first, second, *_ = caplog.text.splitlines()
    assert first.endswith("id=find-me")
    assert second.strip() == "Traceback (most recent call last):"
    assert INSIDE in caplog.text


def test_request_is_logged_on_one_line(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    client.get("/fine?key=secret", headers={"X-Request-ID": "abc"})
    [line] = caplog.text.splitlines()
    assert " flowgauge.requests: GET /fine 200 " in line
    assert line.endswith(" ms client=testclient id=abc")
    assert "secret" not in line


def test_json_line_has_all_fields(
    client: TestClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caplog.handler, "formatter", logs.JsonFormatter())
    for path in ("/parts/4711", "/full", "/no/such/path"):
        client.get(path, headers={"X-Request-ID": "abc"})
    known, full, unknown = map(json.loads, caplog.text.splitlines())
    assert known["ms"] >= 0
    assert known["client"] == "testclient"
    assert {name: known[name] for name in ("request_id", "key_id", "method", "route", "status")} == {
        "request_id": "abc",
        "key_id": "0123456789abcdef",
        "method": "GET",
        "route": "/parts/{part_id}",
        "status": 200,
    }
    assert full["problem"] == "queue-full"
    assert (unknown["route"], unknown["path"]) == (None, "/no/such/path")


def test_log_lines_of_a_request_have_its_id(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    client.get("/noted", headers={"X-Request-ID": "abc"})
    client.get("/noted", headers={"X-Request-ID": "def"})
    said = [line.rpartition("elsewhere: ")[2] for line in caplog.text.splitlines() if "elsewhere" in line]
    assert said == ["noted id=abc", "noted in a thread id=abc", "noted id=def", "noted in a thread id=def"]


def test_requests_are_counted_by_template_and_problem(client: TestClient, telemetry: Telemetry) -> None:
    for part in range(20):
        client.get(f"/parts/{part}")
        client.get(f"/nothing/{part}")
    client.get("/full")
    client.get("/broken")
    value = telemetry.registry.get_sample_value
    labels = {"route": "/parts/{part_id}", "method": "GET", "status": "200"}
    assert value("flowgauge_requests_total", labels) == 20
    assert value("flowgauge_requests_total", {"route": "none", "method": "GET", "status": "404"}) == 20
    assert value("flowgauge_problems_total", {"type": "queue-full"}) == 1
    assert value("flowgauge_problems_total", {"type": "internal"}) == 1
    assert value("flowgauge_problems_total", {"type": "not-found"}) == 20


def test_departed_client_is_neither_error_nor_response(
    client: TestClient, telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(AssertionError):  # the test's client expects an answer
        client.get("/left", headers={"X-Request-ID": "abc"})
    [line] = caplog.text.splitlines()
    assert "GET /left client left " in line
    labels = {"route": "/left", "method": "GET", "status": "left"}
    assert telemetry.registry.get_sample_value("flowgauge_requests_total", labels) == 1
    assert telemetry.registry.get_sample_value("flowgauge_problems_total", {"type": "internal"}) == 0


@pytest.mark.parametrize("path", ["/fine", "/broken"])
def test_stopping_server_closes_connections(client: TestClient, draining: Draining, path: str) -> None:
    assert "Connection" not in client.get(path).headers
    draining.begun = True
    assert client.get(path).headers["Connection"] == "close"


SECURITY = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@pytest.mark.parametrize("path", ["/fine", "/broken", "/full", "/nothing"])
def test_every_response_has_security_headers(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert {name: headers.get(name) for name in SECURITY} == SECURITY


def test_headers_of_a_route_are_kept(client: TestClient) -> None:
    headers = client.get("/kept").headers
    assert headers["Cache-Control"] == "max-age=60"
    assert headers["Content-Security-Policy"] == "default-src 'self'"
    assert headers["X-Content-Type-Options"] == "nosniff"
