import httpx
import pytest

from tests.app.conftest import Keyed


def told(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name not in ("date", "x-request-id")}


@pytest.mark.parametrize(
    "path", ["/", "/login", "/docs", "/openapi.json", "/health/live", "/metrics", "/v1/models", "/nothing"]
)
def test_is_answered_as_get_is_without_the_body(keyless: httpx.Client, path: str) -> None:
    get, head = keyless.get(path), keyless.head(path)
    assert head.status_code == get.status_code
    assert head.content == b""
    if path != "/metrics":  # whose size changes with each request
        assert told(head) == told(get)
        assert int(head.headers["content-length"]) == len(get.content)
    assert keyless.get("/health/live").is_success  # over the same connection


def test_streams_are_begun_and_ended(keyless: httpx.Client) -> None:
    for path in ("/v1/events", "/v1/inspections.csv", "/v1/inspections.ndjson"):
        for _ in range(3):
            response = keyless.head(path)
            assert response.status_code == 200
            assert response.content == b""
    assert "flowgauge_event_readers 0.0" in keyless.get("/metrics").text


def test_needs_what_get_needs(keyed: Keyed) -> None:
    assert keyed.client.head("/v1/keys").status_code == 401
    assert keyed.client.head("/v1/keys", headers=keyed.show("viewer")).status_code == 403
    assert keyed.client.head("/v1/keys", headers=keyed.show("admin")).status_code == 200
    page = keyed.client.head("/scores", headers={"Accept": "text/html"}, follow_redirects=False)
    assert page.headers["location"] == "/login?next=/scores"
