import logging
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.auth.key_store import KeyStore
from app.auth.permissions import COMMAND_LINE, PERMISSIONS
from app.auth.sessions import COOKIE, CSRF_HEADER
from app.main import create_app
from app.schemas.access import Role
from app.settings import Settings
from tests.app.conftest import Keyed
from tests.app.support.guard import SESSION_URL, assert_problem, log_in


@pytest.mark.parametrize("role", Role)
def test_who_am_i(keyed: Keyed, role: Role) -> None:
    assert keyed.client.get(SESSION_URL, headers=keyed.show(role)).json() == {
        "key_id": keyed.key_id(role),
        "name": f"the {role}",
        "role": role.value,
        "permissions": sorted(PERMISSIONS[role]),
        "categories": None,
        "csrf_token": None,
    }
    assert keyed.client.get(SESSION_URL, headers=keyed.show("limited")).json()["categories"] == ["tiny"]


def test_login_cookie_is_hidden_from_scripts_and_other_sites(keyed: Keyed) -> None:
    response = keyed.client.post("/login", json={"key": keyed.keys["viewer"]})
    assert response.status_code == 200
    [cookie] = response.headers.get_list("set-cookie")
    name_value, *attributes = cookie.split("; ")
    assert name_value.startswith(f"{COOKIE}=")
    assert set(attributes) == {"HttpOnly", "Max-Age=43200", "Path=/", "SameSite=strict"}
    assert response.headers["Cache-Control"] == "no-store"
    secret = name_value.partition("=")[2]
    assert secret not in response.text
    assert keyed.keys["viewer"] not in response.text
    assert response.json() == keyed.client.get(SESSION_URL).json()
    assert response.json()["role"] == "viewer"
    assert response.json()["csrf_token"]


def test_under_tls_the_cookie_never_goes_without(keyed: Keyed) -> None:
    client = TestClient(keyed.app, base_url="https://testserver")
    response = client.post("/login", json={"key": keyed.keys["viewer"]})
    assert "Secure" in response.headers["set-cookie"].split("; ")
    write = {CSRF_HEADER: response.json()["csrf_token"]}
    assert "Secure" in client.post("/logout", headers=write).headers["set-cookie"].split("; ")


def test_logging_out_ends_the_session_on_the_server(keyed: Keyed) -> None:
    write = log_in(keyed, "admin")
    session = {"Cookie": f"{COOKIE}={keyed.client.cookies[COOKIE]}"}
    assert_problem(keyed.client.post("/logout"), 403, "forbidden")
    response = keyed.client.post("/logout", headers=write)
    assert response.status_code == 204
    assert "Max-Age=0" in response.headers["set-cookie"]
    assert COOKIE not in keyed.client.cookies
    for path in (SESSION_URL, "/v1/keys"):
        assert_problem(keyed.client.get(path, headers=session), 401, "unauthenticated")
    assert_problem(keyed.client.post("/logout", headers=session | write), 401, "unauthenticated")


@pytest.mark.parametrize("key", ["x", f"fg_{'0' * 16}_{'x' * 43}", "x" * 256])
def test_a_wrong_key_does_not_log_in(keyed: Keyed, key: str) -> None:
    response = keyed.client.post("/login", json={"key": key})
    assert_problem(response, 401, "unauthenticated")
    assert "set-cookie" not in response.headers


def test_logins_are_logged_with_the_address_that_they_came_from(
    keyed: Keyed, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "flowgauge.authentication")
    client = TestClient(keyed.app, client=("192.0.2.7", 1))
    client.post("/login", json={"key": f"fg_{'0' * 16}_{'x' * 43}"})
    client.post("/login", json={"key": keyed.keys["admin"]})
    refused, entered = [record.getMessage() for record in caplog.records]
    assert refused.startswith("refused a login from 192.0.2.7: ")
    assert entered.endswith("the admin' logged in from 192.0.2.7")


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_what_a_form_of_another_site_can_send_is_no_login(keyed: Keyed, content_type: str) -> None:
    content = f'{{"key": "{keyed.keys["admin"]}"}}'
    response = keyed.client.post("/login", content=content, headers={"Content-Type": content_type})
    assert_problem(response, 400, "invalid-request")
    headers = {"Origin": "http://evil.example"}
    response = keyed.client.post("/login", json={"key": keyed.keys["admin"]}, headers=headers)
    assert_problem(response, 403, "forbidden")


def test_a_session_lasts_as_long_as_the_settings_say(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    app = create_app(Settings(models=tmp_path / "models", session_hours=0.5))
    with TestClient(app) as client:
        _, text = KeyStore(app.state.database).create(COMMAND_LINE, Role.VIEWER, "v")
        app.state.keyring.reload()
        response = client.post("/login", json={"key": text})
        assert "Max-Age=1800" in response.headers["set-cookie"]
