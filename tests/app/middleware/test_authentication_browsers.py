from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from app.auth.sessions import COOKIE, CSRF_HEADER
from app.main import create_app
from app.settings import Settings
from tests.app.conftest import Keyed, Serve
from tests.app.support.guard import SESSION_URL, assert_problem, log_in


def test_write_with_a_session_needs_its_token(keyed: Keyed) -> None:
    write = log_in(keyed, "admin")
    body = {"role": "line", "name": "name"}
    mine = keyed.client.cookies[COOKIE]
    other = log_in(keyed, "admin")[CSRF_HEADER]
    keyed.client.cookies.clear()
    session = {"Cookie": f"{COOKIE}={mine}"}
    for token in (None, "", "x", other, write[CSRF_HEADER][:-1], write[CSRF_HEADER] + "x", mine):
        headers = session | ({} if token is None else {CSRF_HEADER: token})
        response = keyed.client.post("/v1/keys", json=body, headers=headers)
        assert CSRF_HEADER in assert_problem(response, 403, "forbidden")
    for method in ("PUT", "PATCH", "DELETE", "X"):  # whatever is not safe
        assert_problem(keyed.client.request(method, "/v1/keys", headers=session), 403, "forbidden")
    assert keyed.client.get("/v1/keys", headers=session).status_code == 200
    assert keyed.client.post("/v1/keys", json=body, headers=session | write).status_code == 201


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://testserver.evil.example"])
def test_session_is_refused_for_foreign_pages(keyed: Keyed, origin: str) -> None:
    write = log_in(keyed, "admin")
    for method in ("GET", "POST"):
        response = keyed.client.request(method, "/v1/keys", headers=write | {"Origin": origin})
        assert_problem(response, 403, "forbidden")
    assert keyed.client.get(SESSION_URL, headers={"Origin": "http://testserver"}).status_code == 200
    assert keyed.client.get(SESSION_URL, headers={"Origin": "https://TESTSERVER"}).status_code == 200


def test_key_is_accepted_from_any_origin(keyed: Keyed) -> None:
    response = keyed.client.get(SESSION_URL, headers=keyed.show("line") | {"Origin": "http://other.example"})
    assert response.status_code == 200
    assert not [name for name in response.headers if name.lower().startswith("access-control-")]


def test_local_client_may_do_everything_without_keys(keyless: httpx.Client) -> None:
    who = keyless.get(SESSION_URL).json()
    assert (who["key_id"], who["name"], who["role"], who["csrf_token"]) == (None, "anonymous", "admin", None)
    port = keyless.base_url.port
    for host in (f"localhost:{port}", "LOCALHOST", "127.0.0.1", f"[::1]:{port}"):
        assert keyless.get(SESSION_URL, headers={"Host": host}).status_code == 200, host


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "0.0.0.0", "192.168.0.1"),  # noqa: S104
        *("[::2]:8000", "::1", "127.0.0.1@evil.example", "127.0.0.1:80:evil.example", ""),
    ],
)
def test_foreign_host_name_is_refused(keyless: httpx.Client, host: str) -> None:
    for method in ("GET", "POST"):
        response = keyless.request(method, "/v1/keys", headers={"Host": host})
        assert "Host" in assert_problem(response, 403, "forbidden")
    assert keyless.get("/health/live", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost:1"])
def test_form_of_a_foreign_page_is_refused(keyless: httpx.Client, origin: str) -> None:
    response = keyless.post(
        "/v1/keys",
        content=b'{"role": "admin", "name": "evil"}',
        headers={"Origin": origin, "Content-Type": "text/plain"},
    )
    assert_problem(response, 403, "forbidden")
    own = str(keyless.base_url).rstrip("/")
    assert keyless.get(SESSION_URL, headers={"Origin": own}).status_code == 200


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Real-IP", "Forwarded", "Via"])
def test_forwarded_request_is_refused_without_keys(keyless: httpx.Client, header: str) -> None:
    response = keyless.get(SESSION_URL, headers={header: "127.0.0.1"})
    assert "only this machine" in assert_problem(response, 403, "forbidden")


def test_trusted_proxy_is_refused_without_keys(tmp_path: Path) -> None:
    """Its clients have foreign addresses, with or without the header."""
    (tmp_path / "models").mkdir()
    app = create_app(Settings(models=tmp_path / "models", history=tmp_path / "history"))
    for host, status in (("192.0.2.7", 403), ("127.0.0.1", 200)):
        with TestClient(app, base_url="http://127.0.0.1:8000", client=(host, 5000)) as client:
            assert client.get(SESSION_URL).status_code == status
            assert_problem(client.get(SESSION_URL, headers={"X-Forwarded-For": host}), 403, "forbidden")


def test_wrong_key_is_refused_without_keys(keyless: httpx.Client) -> None:
    response = keyless.get(SESSION_URL, headers={"X-API-Key": f"fg_{'0' * 16}_{'x' * 43}"})
    assert_problem(response, 401, "unauthenticated")
    # An old cookie comes unasked, and harms nobody.
    assert keyless.get(SESSION_URL, headers={"Cookie": f"{COOKIE}=old"}).status_code == 200


def test_open_network_refuses_foreign_pages(tmp_path: Path, serve_http: Serve) -> None:
    (tmp_path / "models").mkdir()
    app = create_app(Settings(models=tmp_path / "models", allow_unauthenticated_network=True))
    with serve_http(app) as url, httpx.Client(base_url=url, trust_env=False) as client:
        assert client.get(SESSION_URL, headers={"Host": "line-pc.example"}).status_code == 200
        response = client.post("/v1/keys", headers={"Origin": "http://evil.example"})
        assert_problem(response, 403, "forbidden")


def test_first_key_ends_open_access_at_once(keyless: httpx.Client) -> None:
    response = keyless.post("/v1/keys", json={"role": "admin", "name": "first"})
    assert response.status_code == 201
    assert_problem(keyless.get(SESSION_URL), 401, "unauthenticated")
    # And nothing asks for the Host any more: the key is proof enough.
    headers = {"X-API-Key": response.json()["key"], "Host": "line-pc.example"}
    assert keyless.get(SESSION_URL, headers=headers).status_code == 200
