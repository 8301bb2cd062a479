"""Middleware of Ray Serve's proxies, in front of applications that answer as Ray does."""

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from app.cluster.proxy import MODEL_HEADER, middlewares


async def get(app: ASGIApp, path: str, **headers: str) -> httpx.Response:
    for middleware in middlewares():
        app = middleware.cls(app, *middleware.args, **middleware.kwargs)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://line") as client:
        return await client.get(path, headers=headers)


async def tell_model(scope: Scope, receive: Receive, send: Send) -> None:
    await JSONResponse(Request(scope).headers.getlist(MODEL_HEADER))(scope, receive, send)


async def answer_twice_named(scope: Scope, receive: Receive, send: Send) -> None:
    response = JSONResponse([])
    for name in ("own", "of-ray"):
        response.headers.append("X-Request-ID", name)
    await response(scope, receive, send)


async def answer_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    pass


async def fail(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("the replica has died")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "models"),
    [
        ("/v1/models/bottle/predict", ["bottle"]),
        ("/v2/models/bottle_2/infer", ["bottle_2"]),
        ("/v1/models", []),
        ("/v1/models/Bottle/predict", []),
        ("/v1/inspections", []),
    ],
)
async def test_category_of_the_path_routes(path: str, models: list[str]) -> None:
    assert (await get(tell_model, path, **{MODEL_HEADER: "other"})).json() == models
    assert (await get(tell_model, path, **{"serve-multiplexed-model-id": "other"})).json() == models


@pytest.mark.anyio
@pytest.mark.parametrize(
    "app",
    [
        PlainTextResponse("Path '/' not found.", 404),
        PlainTextResponse("Request dropped", 503),
        PlainTextResponse("x", 500),
        answer_nothing,
        fail,
    ],
)
async def test_error_of_ray_becomes_a_problem(app: ASGIApp) -> None:
    response = await get(app, "/v1/models/bottle/predict", **{"X-Request-ID": "line-1"})
    assert (response.status_code, response.headers["content-type"]) == (503, "application/problem+json")
    assert (response.headers["retry-after"], response.headers["x-request-id"]) == ("5", "line-1")
    assert response.json() == {
        "type": "draining",
        "title": "The server is stopping",
        "status": 503,
        "detail": "No replica could answer. Send it again.",
        "instance": "/v1/models/bottle/predict",
        "request_id": "line-1",
    }


@pytest.mark.anyio
async def test_other_answers_pass() -> None:
    assert (await get(PlainTextResponse("flowgauge_up 1"), "/metrics")).text == "flowgauge_up 1"
    assert (await get(JSONResponse({"type": "internal"}, 500), "/v1/models")).json() == {"type": "internal"}
    assert (await get(PlainTextResponse("unhealthy", 503), "/-/healthz")).text == "unhealthy"


@pytest.mark.anyio
async def test_answer_has_one_request_id() -> None:
    response = await get(answer_twice_named, "/v1/models")
    assert response.headers.get_list("X-Request-ID") == ["own"]
