import logging

import pytest
from fastapi import FastAPI
from starlette.responses import StreamingResponse
from starlette.testclient import TestClient

from app import problems
from app.request_context import RequestContext

INSIDE = "/srv/inside/path"


@pytest.fixture
def client() -> TestClient:
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

    app.add_middleware(RequestContext)
    problems.install(app)
    return TestClient(app)


@pytest.mark.parametrize("given", ["a", "line3-000123", "A.b_c:d@e+f=g/h-i", "x" * 128])
def test_keeps_a_sane_id(client: TestClient, given: str) -> None:
    assert client.get("/fine", headers={"X-Request-ID": given}).headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", ["", " ", "a b", "x" * 129, "<script>", 'a"b', "a;b", "a,b", "é", "a\tb"])
def test_replaces_any_other(client: TestClient, given: str) -> None:
    response = client.get("/fine", headers=[(b"X-Request-ID", given.encode("latin-1"))])
    assert len(response.headers["X-Request-ID"]) == 32


def test_makes_a_new_id_for_each_request(client: TestClient) -> None:
    ids = {client.get("/fine").headers["X-Request-ID"] for _ in range(20)}
    assert len(ids) == 20


@pytest.mark.parametrize("path", ["/fine", "/nothing", "/broken"])
def test_every_answer_has_the_id_once(client: TestClient, path: str) -> None:
    response = client.get(path, headers={"X-Request-ID": "mine"})
    assert response.headers.get_list("X-Request-ID") == ["mine"]


def test_what_was_not_foreseen_is_internal_and_tells_nothing(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    response = client.get("/broken", headers={"X-Request-ID": "find-me"})
    assert response.status_code == 500
    assert response.headers["content-type"] == problems.MEDIA_TYPE
    assert response.json()["type"] == "internal"
    assert response.json()["request_id"] == "find-me"
    assert INSIDE not in response.text
    assert "RuntimeError" not in response.text
    [record] = [r for r in caplog.records if r.exc_info]
    assert "find-me" in record.getMessage()
    assert INSIDE in caplog.text


def test_an_answer_that_has_begun_is_cut_off(client: TestClient) -> None:
    with pytest.raises(RuntimeError, match="too late"):
        client.get("/late")


def test_logs_one_line_per_request(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flowgauge.requests")
    client.get("/fine?key=secret", headers={"X-Request-ID": "abc"})
    [line] = [r.getMessage() for r in caplog.records if r.name == "flowgauge.requests"]
    assert line.startswith("GET /fine 200 ")
    assert line.endswith("id=abc")
    assert "secret" not in line


def test_no_line_of_the_log_can_be_forged(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flowgauge.requests")
    client.get("/x%0aGET%20/forged%20200")
    [line] = [r.getMessage() for r in caplog.records if r.name == "flowgauge.requests"]
    assert "\n" not in line
