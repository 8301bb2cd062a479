import logging
from functools import partial
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.auth.key_store import KeyStore
from app.auth.permissions import COMMAND_LINE
from app.auth.sessions import COOKIE
from app.main import create_app
from app.middleware import authentication
from app.middleware.authentication import OPEN
from app.middleware.rate_limits import TokenBuckets
from app.schemas.access import Role
from app.settings import Settings
from tests.app.conftest import Keyed
from tests.app.support.guard import SESSION_URL, assert_problem, documented_routes, fill_path, log_in
from tests.support.waiting import eventually


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buckets get no new tokens, however long a test takes."""
    monkeypatch.setattr(authentication, "TokenBuckets", partial(TokenBuckets, clock=lambda: 0.0))


def test_only_public_paths_need_no_key(keyed: Keyed) -> None:
    health = {f"{protocol}/health/{state}" for protocol in ("", "/v2") for state in ("live", "ready")}
    assert {*health, "/docs", "/openapi.json", "/login"} == OPEN
    for path in OPEN - {"/login"}:
        assert keyed.client.get(path).status_code in (200, 503), path
        assert keyed.client.get(path, headers={"X-API-Key": "wrong"}).status_code in (200, 503), path


def test_every_other_path_needs_a_key(keyed: Keyed) -> None:
    asked = [(method, fill_path(path)) for method, path in documented_routes(keyed.app) if path not in OPEN]
    assert len(asked) > 20
    asked += [("GET", path) for path in ("/", "/nothing", "/docs/", "/openapi.json/", "/health/live/")]
    asked += [("GET", path) for path in ("//docs", "/health/../v1/keys", "/docs%0a", "/LOGIN")]
    asked += [(method, SESSION_URL) for method in ("HEAD", "OPTIONS", "TRACE", "CONNECT")]
    for method, path in asked:
        response = keyed.client.request(method, path)
        assert response.status_code == 401, (method, path)
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="FlowGauge"'


@pytest.mark.parametrize("role", [*Role, "limited"])
def test_key_is_accepted_in_either_header(keyed: Keyed, role: str) -> None:
    for headers in (keyed.show(role), {"Authorization": f"bEARER   {keyed.keys[role]} "}):
        answer = keyed.client.get(SESSION_URL, headers=headers)
        assert answer.status_code == 200
        assert answer.json()["role"] == ("admin" if role == "limited" else role)


def test_key_in_url_or_body_is_ignored_and_not_logged(keyed: Keyed, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = keyed.keys["admin"]
    assert_problem(
        keyed.client.get(SESSION_URL, params={"X-API-Key": key, COOKIE: key}), 401, "unauthenticated"
    )
    assert_problem(keyed.client.post("/v1/keys", data={"X-API-Key": key}), 401, "unauthenticated")
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("flowgauge")]
    assert lines
    assert not [line for line in lines if key[20:] in line]


def test_key_takes_precedence_over_a_cookie(keyed: Keyed) -> None:
    log_in(keyed, "admin")
    assert keyed.client.get(SESSION_URL).json()["role"] == "admin"
    assert keyed.client.get(SESSION_URL, headers=keyed.show("line")).json()["role"] == "line"
    for wrong in ("", "wrong", keyed.keys["line"][:-1]):
        for headers in ({"X-API-Key": wrong}, {"Authorization": f"Bearer {wrong}"}):
            assert_problem(keyed.client.get(SESSION_URL, headers=headers), 401, "unauthenticated")
    # Other schemes are for others, such as a proxy that asks for a password.
    assert keyed.client.get(SESSION_URL, headers={"Authorization": "Basic dXNlcjpwYXNz"}).status_code == 200


def test_refused_key_is_logged_without_its_secret(keyed: Keyed, caplog: pytest.LogCaptureFixture) -> None:
    wrong = keyed.keys["admin"][:-1] + "!"
    keyed.client.get(SESSION_URL, headers={"X-API-Key": wrong})
    keyed.client.post("/login", json={"key": wrong})
    lines = [record.getMessage() for record in caplog.records if record.name == "flowgauge.authentication"]
    assert len(lines) == 2
    assert not [line for line in lines if wrong[20:40] in line]


def test_revoked_key_and_session_end_at_once(keyed: Keyed) -> None:
    write = log_in(keyed, "viewer")
    session = {"Cookie": f"{COOKIE}={keyed.client.cookies[COOKIE]}"}
    keyed.client.cookies.clear()
    assert keyed.client.get(SESSION_URL, headers=session).status_code == 200
    key_id = keyed.key_id("viewer")
    assert keyed.client.delete(f"/v1/keys/{key_id}", headers=keyed.show("admin")).status_code == 204
    refused = keyed.client.get(SESSION_URL, headers=keyed.show("viewer"))
    assert "revoked" in assert_problem(refused, 401, "unauthenticated")
    assert_problem(keyed.client.get(SESSION_URL, headers=session), 401, "unauthenticated")
    assert_problem(keyed.client.post("/logout", headers=session | write), 401, "unauthenticated")
    assert_problem(keyed.client.post("/login", json={"key": keyed.keys["viewer"]}), 401, "unauthenticated")


def test_key_revoked_from_the_command_line_ends_soon(keyed: Keyed) -> None:
    assert keyed.client.get(SESSION_URL, headers=keyed.show("viewer")).status_code == 200
    KeyStore(keyed.app.state.database).revoke(COMMAND_LINE, keyed.key_id("viewer"))
    eventually(lambda: keyed.client.get(SESSION_URL, headers=keyed.show("viewer")).status_code == 401)


@pytest.mark.usefixtures("still")
def test_key_has_its_own_limit(keyed: Keyed) -> None:
    body = {"role": "viewer", "name": "slow", "requests_per_minute": 3}
    slow = keyed.client.post("/v1/keys", json=body, headers=keyed.show("admin")).json()["key"]
    statuses = [keyed.client.get(SESSION_URL, headers={"X-API-Key": slow}).status_code for _ in range(3)]
    assert statuses == [200] * 3
    response = keyed.client.get(SESSION_URL, headers={"Authorization": f"Bearer {slow}"})
    assert "3 requests a minute" in assert_problem(response, 429, "rate-limited")
    assert response.headers["Retry-After"] == "20"
    # A session is the same key, and other keys are others.
    assert keyed.client.post("/login", json={"key": slow}).status_code == 200
    assert_problem(keyed.client.get(SESSION_URL), 429, "rate-limited")
    assert keyed.client.get(SESSION_URL, headers=keyed.show("line")).status_code == 200


@pytest.mark.usefixtures("still")
def test_server_limit_applies_to_keys_without_one(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    app = create_app(Settings(models=tmp_path / "models", requests_per_minute=2))
    with TestClient(app) as client:
        assert [client.get(SESSION_URL).status_code for _ in range(9)] == [200] * 9  # there are no keys
        keys = KeyStore(app.state.database)
        _, plain = keys.create(COMMAND_LINE, Role.LINE, "plain")
        _, fast = keys.create(COMMAND_LINE, Role.LINE, "fast", requests_per_minute=60)
        app.state.keyring.reload()
        plain_statuses = [client.get(SESSION_URL, headers={"X-API-Key": plain}).status_code for _ in range(4)]
        fast_statuses = [client.get(SESSION_URL, headers={"X-API-Key": fast}).status_code for _ in range(4)]
    assert plain_statuses == [200, 200, 429, 429]
    assert fast_statuses == [200] * 4
