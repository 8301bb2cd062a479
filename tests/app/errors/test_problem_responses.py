from errno import ENOSPC

import pytest
from starlette.testclient import TestClient

from app.database.engine import DatabaseUnavailable
from app.errors import problem_responses
from app.errors.problems import TYPES, Problem
from tests.app.support.guard import assert_problem


def test_error_is_mapped_to_a_problem(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the details that the client does not see."""
    known = Problem("queue-full", "64 images are waiting.")
    assert problem_responses.to_problem(known) is known
    assert not caplog.records
    gone = DatabaseUnavailable("the database does not answer (connection to 10.0.0.7 refused)")
    full = OSError(ENOSPC, "No space left on device", "/srv/plant")
    failed = RuntimeError("CUDA error at /usr/lib/secret.so")
    for error, name, secret in (
        (gone, "history-unavailable", "10.0.0.7"),
        (full, "history-unavailable", "/srv/plant"),
        (failed, "internal", "secret"),
    ):
        caplog.clear()
        problem = problem_responses.to_problem(error)
        assert problem.name == name
        assert secret not in problem.detail
        assert secret in caplog.text


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1", "/v1/models/", "/v1/models/tiny/", "/v1/models/tiny/version", "/%00%0a%ff"]
)
def test_unknown_path_is_not_found(service: TestClient, path: str) -> None:
    response = service.get(path)
    assert_problem(response, 404, "not-found")
    assert (response.json()["title"], response.json()["instance"]) == (TYPES["not-found"].title, path)


def test_browser_gets_a_page_for_an_unknown_address(service: TestClient) -> None:
    accept = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "Accept-Language": "de"}
    response = service.get("/modells", headers=accept)
    assert (response.status_code, response.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "Nicht gefunden" in response.text
    assert response.headers["X-Request-ID"] in response.text
    assert "script-src" in response.headers["Content-Security-Policy"]


def test_only_a_few_of_many_faults_are_listed(service: TestClient) -> None:
    body = {f"field {i}": 1 for i in range(100)}
    detail = assert_problem(service.post("/v1/keys", json=body), 400, "invalid-request")
    assert detail.endswith("; and 94 more")
    assert detail.count("is unknown") + detail.count("is required") == 8
    corners = {"image": {"width": 9, "height": 9}, "polygons": [[""] * 400] * 60}
    for response in (
        service.post("/v1/models/tiny/predict?" + "&".join(["inline=x"] * 5000)),
        service.put("/v1/models/tiny/region", json=corners),
    ):
        assert len(assert_problem(response, 400, "invalid-request")) < 1000


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v1/models", "GET"),
        ("DELETE", "/v1/models/tiny", "GET"),
        ("GET", "/v1/models/tiny/predict", "POST"),
        ("PUT", "/v1/models/tiny/versions/v1/predict", "POST"),
        ("HEAD", "/v1/models/tiny/predict", "POST"),
        ("POST", "/health/live", "GET, HEAD"),
        # Several routes have these paths.
        ("POST", "/v1/models/tiny/thresholds", "GET, PATCH"),
        ("DELETE", "/v1/keys", "GET, POST"),
        ("DELETE", "/login", "GET, POST"),
    ],
)
def test_wrong_method_is_refused(service: TestClient, method: str, path: str, allowed: str) -> None:
    response = service.request(method, path)
    assert response.headers["Allow"] == allowed
    if method != "HEAD":
        detail = assert_problem(response, 405, "method-not-allowed")
        assert detail == f"{method} is not allowed here; allowed: {allowed}."


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("timeout_ms=soon", "query parameter timeout_ms: must be a whole number"),
        ("timeout_ms=1.5", "query parameter timeout_ms: must be a whole number"),
        ("timeout_ms=" + "9" * 5000, "query parameter timeout_ms: must be a whole number"),
        ("timeout_ms=0", "query parameter timeout_ms: must be at least 1"),
        ("timeout_ms=-5", "query parameter timeout_ms: must be at least 1"),
        ("timeout_ms=600001", "query parameter timeout_ms: must be at most 600000"),
        ("inline=picture", "query parameter inline: must be 'overlay' or 'heatmap'"),
        ("inline=overlay&inline=", "query parameter inline: must be 'overlay' or 'heatmap'"),
    ],
)
def test_invalid_parameter_is_explained(service: TestClient, query: str, complaint: str) -> None:
    response = service.post(f"/v1/models/tiny/predict?{query}", content=b"")
    assert assert_problem(response, 400, "invalid-request") == complaint


@pytest.mark.parametrize(
    ("body", "kind", "complaint"),
    [
        (b'{"name": "line 3", "role": "line"}', "text/plain", "the body: send JSON as application/json"),
        (b"name=line", "application/x-www-form-urlencoded", "the body: send JSON as application/json"),
        (b"{}", "application/octet-stream", "the body: send JSON as application/json"),
        (b'"line"', "application/json", "the body: must be an object"),
        (b"{", "application/json", "the body is not valid JSON"),
        (b"[" * 60_000, "application/json", "The request could not be read."),
        (b"\xff", "application/json", "The request could not be read."),
        (b"", "application/json", "the body: is required"),
        (b'{"name": "line 3"}', "application/json", "body field role: is required"),
    ],
)
def test_body_that_is_not_json_is_explained(
    service: TestClient, body: bytes, kind: str, complaint: str
) -> None:
    response = service.post("/v1/keys", content=body, headers={"Content-Type": kind})
    assert assert_problem(response, 400, "invalid-request") == complaint
