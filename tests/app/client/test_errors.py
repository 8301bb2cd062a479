import json

import httpx
import pytest

from app.client import errors
from app.errors import problems


def response(status: int, body: object, **headers: str) -> httpx.Response:
    request = httpx.Request("GET", "http://host/v1/models")
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.Response(status, headers=headers, content=content, request=request)


def problem(name: str, status: int) -> dict[str, object]:
    fields = {"title": "t", "detail": "what was wrong", "instance": "/", "request_id": "r"}
    return {"type": name, "status": status, **fields}


@pytest.mark.parametrize("name", problems.TYPES)
def test_busy_errors_match_the_table_of_problems(name: problems.ProblemName) -> None:
    kind = problems.TYPES[name]
    error = errors.to_error(response(kind.status, problem(name, kind.status), **{"Retry-After": "7"}))
    assert isinstance(error, errors.ProblemError)
    assert (error.type, error.status, error.request_id) == (name, kind.status, "r")
    assert str(error) == "what was wrong"
    assert isinstance(error, errors.BusyError) == (kind.retry_after is not None)
    assert error.retry_after == 7


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.RefusedError),
        (418, errors.RefusedError),  # of a later server
        (401, errors.AccessError),
        (403, errors.AccessError),
        (404, errors.NotFoundError),
        (410, errors.NotFoundError),
        (409, errors.ConflictError),
        (412, errors.ConflictError),
        (428, errors.ConflictError),
        (500, errors.ServerError),
        (504, errors.ServerError),
    ],
)
def test_class_follows_from_the_status(status: int, kind: type[errors.ProblemError]) -> None:
    error = errors.to_error(response(status, problem("teapot", status)))
    assert type(error) is kind
    assert error.retry_after is None


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", {"error": "x"}, []])
def test_no_problem_at_all(body: object) -> None:
    error = errors.to_error(response(502, body))
    assert isinstance(error, errors.UnexpectedAnswerError)
    assert error.status == 502
    assert "GET http://host/v1/models: status 502" in str(error)


@pytest.mark.parametrize("after", ["Wed, 21 Oct 2026 07:28:00 GMT", "-1", "1e9"])
def test_invalid_retry_after_is_ignored(after: str) -> None:
    error = errors.to_error(response(503, problem("queue-full", 503), **{"Retry-After": after}))
    assert isinstance(error, errors.BusyError)
    assert error.retry_after is None


@pytest.mark.parametrize(
    ("error", "sent"),
    [
        (httpx.ConnectError("refused"), False),
        (httpx.ConnectTimeout(""), False),
        (httpx.PoolTimeout(""), False),
        (httpx.ReadTimeout(""), True),
        (httpx.RemoteProtocolError("closed"), True),
        (httpx.WriteError(""), True),
    ],
)
def test_error_says_if_the_request_was_sent(error: httpx.TransportError, sent: bool) -> None:
    found = errors.unreachable("http://host", error)
    assert isinstance(found, errors.UnreachableError)
    assert found.sent == sent
    assert "http://host" in str(found)
    assert (str(error) or type(error).__name__) in str(found)
