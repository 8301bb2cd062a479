import json

import httpx
import pytest

from app import problems
from app.client import errors


def response(status: int, body: object, **headers: str) -> httpx.Response:
    request = httpx.Request("GET", "http://host/v1/models")
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.Response(status, headers=headers, content=content, request=request)


def problem(name: str, status: int) -> dict[str, object]:
    return {
        "type": name,
        "title": "t",
        "status": status,
        "detail": "what was wrong",
        "instance": "/",
        "request_id": "r",
    }


def test_every_problem_of_the_table_is_a_class_of_its_own() -> None:
    assert errors.BY_TYPE.keys() == problems.TYPES.keys()
    assert len(set(errors.BY_TYPE.values())) == len(errors.BY_TYPE)


@pytest.mark.parametrize("name", problems.TYPES)
def test_busy_is_what_the_table_says_may_work_later(name: problems.ProblemName) -> None:
    kind = problems.TYPES[name]
    error = errors.of_response(response(kind.status, problem(name, kind.status), **{"Retry-After": "7"}))
    assert type(error) is errors.BY_TYPE[name]
    assert isinstance(error, errors.ProblemError)
    assert (error.type, error.status, error.request_id, str(error)) == (
        name,
        kind.status,
        "r",
        "what was wrong",
    )
    assert isinstance(error, errors.BusyError) == (kind.retry_after is not None)
    assert error.retry_after == 7


def test_a_problem_of_a_later_server() -> None:
    error = errors.of_response(response(418, problem("teapot", 418)))
    assert type(error) is errors.ProblemError
    assert error.retry_after is None


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", {"error": "x"}, []])
def test_no_problem_at_all(body: object) -> None:
    error = errors.of_response(response(502, body))
    assert isinstance(error, errors.UnexpectedAnswerError)
    assert error.status == 502
    assert "GET http://host/v1/models: status 502" in str(error)


@pytest.mark.parametrize("after", ["Wed, 21 Oct 2026 07:28:00 GMT", "-1", "1e9", "99999999999"])
def test_a_retry_after_that_is_passed_over(after: str) -> None:
    error = errors.of_response(response(503, problem("queue-full", 503), **{"Retry-After": after}))
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
def test_whether_the_server_may_have_got_it(error: httpx.TransportError, sent: bool) -> None:
    found = errors.no_answer("http://host", error)
    assert isinstance(found, errors.UnreachableError)
    assert found.sent == sent
    assert "http://host" in str(found)
    assert (str(error) or type(error).__name__) in str(found)


def test_a_request_that_cannot_be_formed() -> None:
    found = errors.no_answer("http://host", httpx.LocalProtocolError("Illegal header value"))
    assert isinstance(found, errors.UnsendableError)
    assert "Illegal header value" in str(found)
