import asyncio
import hmac
import logging
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from fastapi.dependencies.models import Dependant
from starlette.requests import Request
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from app import dialects, guard, keys
from app.access import COMMAND_LINE, Permission, Requires, Role
from app.guard import LOGINS_PER_MINUTE, OPEN, REFUSALS_PER_MINUTE, Guard
from app.keyring import RELOAD_SECONDS, Keyring
from app.keys import Keys
from app.limits import TokenBuckets
from app.main import create_app
from app.problems import Problem
from app.sessions import COOKIE
from app.settings import Settings
from tests.app.conftest import Keyed
from tests.app.guarded import WHO, expect_problem, filled, log_in, routes
from tests.waiting import eventually


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buckets get no new tokens, however long a test takes."""
    monkeypatch.setattr(guard, "TokenBuckets", partial(TokenBuckets, clock=lambda: 0.0))


def detail(keyring: Keyring, key: str) -> str:
    """What a keyring says against a key; nothing where it takes it."""
    try:
        keyring.expect_key(key)
    except Problem as problem:
        return problem.detail
    return ""


def test_what_is_open_needs_no_key_and_is_no_more_than_this(keyed: Keyed) -> None:
    health = {f"{protocol}/health/{state}" for protocol in ("", "/v2") for state in ("live", "ready")}
    assert {*health, "/docs", "/openapi.json", "/login"} == OPEN
    for path in OPEN - {"/login"}:
        assert keyed.client.get(path).status_code in (200, 503), path
        assert keyed.client.get(path, headers={"X-API-Key": "wrong"}).status_code in (200, 503), path


def test_every_other_route_and_path_needs_one(keyed: Keyed) -> None:
    asked = [(method, filled(route.path)) for route, method in routes() if route.path not in OPEN]
    assert len(asked) > 20
    asked += [
        ("GET", path) for path in ("/", "/nothing", "/docs/", "/docs/oauth2-redirect", "/openapi.json/")
    ]
    asked += [
        ("GET", path) for path in ("/health/live/", "//docs", "/health/../v1/keys", "/docs%0a", "/LOGIN")
    ]
    asked += [(method, WHO) for method in ("HEAD", "OPTIONS", "TRACE", "QUERY", "CONNECT")]
    # Refusals are limited by address, so each comes from one of its own.
    for number, (method, path) in enumerate(asked):
        response = TestClient(keyed.app, client=(f"client-{number}", 1)).request(method, path)
        if dialects.of(path) is dialects.LOOKOUT:  # which knows no 401
            assert response.headers["x-amzn-ErrorType"] == "AccessDeniedException"
            continue
        assert response.status_code == 401, (method, path)
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="FlowGauge"'


def permissions(dependant: Dependant) -> Iterator[Permission | None]:
    for one in dependant.dependencies:
        if isinstance(one.call, Requires):
            yield one.call.permission
        yield from permissions(one)


def test_every_route_that_needs_a_key_says_for_what(keyed: Keyed) -> None:
    """A route that forgets its permission would be open to every key."""
    served = set(keyed.client.get("/openapi.json").json()["paths"])
    assert served == {route.path_format for route, _ in routes()}
    for route, _ in routes():
        required = list(permissions(route.dependant))
        assert bool(required) == (route.path not in OPEN), route.path
        if required == [None]:
            assert route.path in (WHO, "/logout", "/v2")


@pytest.mark.parametrize("role", [*Role, "limited"])
def test_a_key_comes_in_by_either_header(keyed: Keyed, role: str) -> None:
    for headers in (keyed.show(role), {"Authorization": f"Bearer {keyed.keys[role]}"}):
        answer = keyed.client.get(WHO, headers=headers)
        assert answer.status_code == 200
        assert answer.json()["role"] == ("admin" if role == "limited" else role)


def test_a_key_in_the_address_is_no_key(keyed: Keyed, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = keyed.keys["admin"]
    for name in ("key", "api_key", "X-API-Key", "x-api-key", "access_token", "token", COOKIE):
        expect_problem(keyed.client.get(WHO, params={name: key}), 401, "unauthenticated")
    response = keyed.client.post("/v1/keys", data={"key": key, "X-API-Key": key})
    expect_problem(response, 401, "unauthenticated")
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("flowgauge")]
    assert lines
    assert not [line for line in lines if key[20:] in line]


def test_two_keys_are_none(keyed: Keyed) -> None:
    line, admin = keyed.keys["line"], keyed.keys["admin"]
    for headers in (
        [("X-API-Key", line), ("X-API-Key", admin)],
        [("X-API-Key", admin), ("x-api-key", admin)],
        [("X-API-Key", line), ("Authorization", f"Bearer {admin}")],
        [("X-API-Key", f"{admin}, {admin}")],
    ):
        expect_problem(keyed.client.get(WHO, headers=headers), 401, "unauthenticated")


def test_a_key_goes_before_a_cookie_and_never_falls_back_to_it(keyed: Keyed) -> None:
    log_in(keyed, "admin")
    assert keyed.client.get(WHO).json()["role"] == "admin"
    assert keyed.client.get(WHO, headers=keyed.show("line")).json()["role"] == "line"
    for wrong in ("", "wrong", keyed.keys["line"][:-1]):
        response = keyed.client.get(WHO, headers={"X-API-Key": wrong})
        expect_problem(response, 401, "unauthenticated")


def test_a_refused_key_is_logged_without_its_secret(keyed: Keyed, caplog: pytest.LogCaptureFixture) -> None:
    wrong = keyed.keys["admin"][:-1] + "!"
    keyed.client.get(WHO, headers={"X-API-Key": wrong})
    keyed.client.post("/login", json={"key": wrong})
    lines = [record.getMessage() for record in caplog.records if record.name == "flowgauge.guard"]
    assert len(lines) == 2
    assert not [line for line in lines if wrong[20:40] in line]


def test_no_name_can_forge_a_line_of_the_log(keyed: Keyed, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    body = {"role": "line", "name": "x\nGET /forged 200"}
    assert keyed.client.post("/v1/keys", json=body, headers=keyed.show("admin")).status_code == 400
    body["name"] = "x' GET /forged 200"
    created = keyed.client.post("/v1/keys", json=body, headers=keyed.show("admin"))
    assert keyed.client.post("/login", json={"key": created.json()["key"]}).status_code == 200
    assert all("\n" not in record.getMessage() for record in caplog.records)


def test_a_websocket_is_refused(keyed: Keyed) -> None:
    with pytest.raises(WebSocketDisconnect), keyed.client.websocket_connect(WHO, headers=keyed.show("admin")):
        pass


def test_a_key_of_one_category_gets_nowhere_with_another(keyed: Keyed) -> None:
    asked = [(method, route.path) for route, method in routes() if "{category}" in route.path]
    assert len(asked) > 5
    for method, path in asked:
        response = keyed.client.request(method, filled(path), headers=keyed.show("limited"))
        if dialects.of(path) is dialects.PROBLEMS:
            expect_problem(response, 403, "forbidden")
        assert response.status_code == 403, path
        assert "The key is not for category" in response.text, path
        response = keyed.client.request(
            method, filled(path.replace("{category}", "tiny")), headers=keyed.show("limited")
        )
        assert response.status_code != 403, path


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_key_of_one_category_does_not_administer_all(keyed: Keyed, method: str) -> None:
    response = keyed.client.request(
        method, "/v1/keys", json={"role": "admin", "name": "mine"}, headers=keyed.show("limited")
    )
    expect_problem(response, 403, "forbidden")


def test_a_revoked_key_and_its_session_end_at_once(keyed: Keyed) -> None:
    write = log_in(keyed, "viewer")
    session = {"Cookie": f"{COOKIE}={keyed.client.cookies[COOKIE]}"}
    keyed.client.cookies.clear()
    assert keyed.client.get(WHO, headers=session).status_code == 200
    key_id = keyed.key_id("viewer")
    assert keyed.client.delete(f"/v1/keys/{key_id}", headers=keyed.show("admin")).status_code == 204
    assert "revoked" in expect_problem(
        keyed.client.get(WHO, headers=keyed.show("viewer")), 401, "unauthenticated"
    )
    expect_problem(keyed.client.get(WHO, headers=session), 401, "unauthenticated")
    expect_problem(keyed.client.post("/logout", headers=session | write), 401, "unauthenticated")
    expect_problem(keyed.client.post("/login", json={"key": keyed.keys["viewer"]}), 401, "unauthenticated")


def test_a_key_revoked_from_the_command_line_ends_within_two_seconds(
    keyed: Keyed, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring: Keyring = keyed.app.state.keyring
    reload = keyring.reload
    refused: list[str] = []

    def reload_and_ask() -> None:
        reload()
        refused.append(detail(keyring, keyed.keys["viewer"]))

    with keyring._reading:  # no copy is being made
        monkeypatch.setattr(keyring, "reload", reload_and_ask)
        Keys(keyed.app.state.database).revoke(COMMAND_LINE, keyed.key_id("viewer"))
    # By the next copy; how long a busy machine takes for one says nothing of the keys.
    assert RELOAD_SECONDS <= 2
    eventually(lambda: bool(refused))
    assert "revoked" in refused[0]
    assert keyed.client.get(WHO, headers=keyed.show("viewer")).status_code == 401


def test_a_key_has_a_limit_of_its_own_or_the_servers(keyed: Keyed) -> None:
    body = {"role": "viewer", "name": "slow", "requests_per_minute": 3}
    slow = keyed.client.post("/v1/keys", json=body, headers=keyed.show("admin")).json()["key"]
    statuses = [keyed.client.get(WHO, headers={"X-API-Key": slow}).status_code for _ in range(3)]
    assert statuses == [200] * 3
    response = keyed.client.get(WHO, headers={"Authorization": f"Bearer {slow}"})
    assert "3 requests a minute" in expect_problem(response, 429, "rate-limited")
    assert 1 <= int(response.headers["Retry-After"]) <= 20
    # A session is the same key, and other keys are others.
    assert keyed.client.post("/login", json={"key": slow}).status_code == 200
    expect_problem(keyed.client.get(WHO), 429, "rate-limited")
    assert keyed.client.get(WHO, headers=keyed.show("line")).status_code == 200


def test_the_servers_limit_is_for_keys_without_one(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    app = create_app(Settings(models=tmp_path / "models", requests_per_minute=2))
    with TestClient(app) as client:
        assert [client.get(WHO).status_code for _ in range(9)] == [200] * 9  # there are no keys
        keys = Keys(app.state.database)
        _, plain = keys.create(COMMAND_LINE, Role.LINE, "plain")
        _, fast = keys.create(COMMAND_LINE, Role.LINE, "fast", requests_per_minute=60)
        app.state.keyring.reload()
        plain_statuses = [client.get(WHO, headers={"X-API-Key": plain}).status_code for _ in range(4)]
        fast_statuses = [client.get(WHO, headers={"X-API-Key": fast}).status_code for _ in range(4)]
    assert plain_statuses == [200, 200, 429, 429]
    assert fast_statuses == [200] * 4


@pytest.mark.usefixtures("still")
def test_a_flood_of_logins_is_cut_off_for_its_address_alone(keyed: Keyed) -> None:
    statuses = [
        keyed.client.post("/login", json={"key": "wrong"}).status_code for _ in range(LOGINS_PER_MINUTE + 5)
    ]
    assert statuses == [401] * LOGINS_PER_MINUTE + [429] * 5
    expect_problem(keyed.client.post("/login", json={"key": keyed.keys["admin"]}), 429, "rate-limited")
    elsewhere = TestClient(keyed.app, client=("192.0.2.7", 50000))
    assert elsewhere.post("/login", json={"key": keyed.keys["admin"]}).status_code == 200


@pytest.mark.usefixtures("still")
def test_a_household_of_ipv6_is_one_address(keyed: Keyed) -> None:
    for i in range(LOGINS_PER_MINUTE):
        client = TestClient(keyed.app, client=(f"2001:db8:1:2::{i:x}", 50000))
        assert client.post("/login", json={"key": "wrong"}).status_code == 401
    statuses = [
        TestClient(keyed.app, client=(address, 1)).post("/login", json={"key": "wrong"}).status_code
        for address in ("2001:db8:1:2:ffff::1", "2001:db8:1:3::1", "::ffff:192.0.2.8")
    ]
    assert statuses == [429, 401, 401]


@pytest.mark.usefixtures("still")
def test_a_flood_of_wrong_keys_is_counted_but_locks_nobody_out(
    keyed: Keyed, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    statuses = [
        keyed.client.get(WHO, headers={"X-API-Key": "wrong"}).status_code
        for _ in range(REFUSALS_PER_MINUTE + 5)
    ]
    assert statuses == [401] * REFUSALS_PER_MINUTE + [429] * 5
    # A line PC behind the same router goes on.
    assert keyed.client.get(WHO, headers=keyed.show("line")).status_code == 200
    refusals = [record for record in caplog.records if record.name == "flowgauge.guard"]
    assert len(refusals) == REFUSALS_PER_MINUTE
    lines = [record.getMessage() for record in caplog.records if record.name == "flowgauge.requests"]
    assert len(lines) == REFUSALS_PER_MINUTE + 1
    assert not [line for line in lines if " 429 " in line]


def test_the_hot_path_never_asks_the_database(keyed: Keyed) -> None:
    write = log_in(keyed, "viewer")
    keyed.app.state.keyring.close()  # no reload in between
    engine = keyed.app.state.database.engine

    def count() -> None:
        raise AssertionError("the database was asked")

    original = engine.connect
    engine.connect = lambda *_: count()
    try:
        assert keyed.client.get(WHO).status_code == 200
        assert keyed.client.get(WHO, headers=keyed.show("line")).status_code == 200
        expect_problem(keyed.client.get(WHO, headers={"X-API-Key": "wrong"}), 401, "unauthenticated")
        expect_problem(keyed.client.post("/v1/keys", headers=write), 403, "forbidden")
    finally:
        engine.connect = original


def test_a_refusal_is_the_same_work_whatever_is_wrong_with_a_key(
    keyed: Keyed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So how long it takes tells neither which keys there are nor how much of a secret was guessed."""
    text = keyed.keys["admin"]
    wrong = [
        text.replace(text[3:19], "0" * 16),
        text[:20] + ("A" if text[20] != "A" else "B") + text[21:],
        text[:-1] + ("A" if text[-1] != "A" else "B"),
    ]
    done: list[tuple[str, ...]] = []
    digest, compare = keys.sha256, hmac.compare_digest

    def digested(secret: str) -> str:
        done.append(("digest", secret))
        return digest(secret)

    def compared(a: str, b: str) -> bool:
        done.append(("compare", a, b))
        return compare(a, b)

    monkeypatch.setattr(keys, "sha256", digested)
    monkeypatch.setattr(hmac, "compare_digest", compared)
    for key in wrong:
        done.clear()
        with pytest.raises(Problem, match="no such key"):
            keyed.app.state.keyring.expect_key(key)
        (first, secret), (second, found, kept) = done
        assert (first, second) == ("digest", "compare")
        assert (secret, found) == (key[20:], digest(key[20:]))
        assert len(kept) == len(found)  # of another length it would be told apart at once


def test_many_threads_of_clients_are_told_apart(keyed: Keyed) -> None:
    answers: list[tuple[str, str]] = []

    def ask(role: str) -> None:
        client = TestClient(keyed.app)
        for _ in range(30):
            answers.append((role, client.get(WHO, headers=keyed.show(role)).json()["role"]))  # noqa: PERF401

    threads = [threading.Thread(target=ask, args=(role,)) for role in [*Role] * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 30 * 8
    assert [pair for pair in answers if pair[0] != pair[1]] == []


def test_no_cookie_has_anything_to_unescape(tmp_path: Path) -> None:
    seen: list[dict[str, str]] = []

    async def route(scope: Scope, _: Receive, __: Send) -> None:
        seen.append(Request(scope).cookies)

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(_: Message) -> None:
        raise AssertionError

    scope = {"type": "http", "method": "GET", "path": "/docs", "headers": [(b"cookie", rb'a="\"\101"; b=c')]}
    asyncio.run(Guard(route, Settings(models=tmp_path))(scope, receive, send))
    assert seen == [{"a": '?"?101', "b": "c"}]


PROXY = "FLOWGAUGE_TRUSTED_PROXIES does not name it"


@pytest.mark.parametrize("others", ["192.0.2.6", "192.0.2.6\r\nforged, 192.0.2.7"])
def test_a_proxy_that_is_not_named_is_told_of_once(
    keyed: Keyed, caplog: pytest.LogCaptureFixture, others: str
) -> None:
    for _ in range(3):
        keyed.client.get("/health/live", headers={"X-Forwarded-For": others})
    told = [record.getMessage() for record in caplog.records if PROXY in record.getMessage()]
    assert len(told) == 1
    assert "\n" not in told[0]


def test_many_such_proxies_do_not_fill_the_log(keyed: Keyed, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(40):
        client = TestClient(keyed.app, client=(f"192.0.2.{number}", 1))
        client.get("/health/live", headers={"X-Forwarded-For": "198.51.100.1"})
    assert caplog.text.count(PROXY) == 16


@pytest.mark.parametrize(
    ("address", "forwarded", "told"),
    [
        ("192.0.2.6", ["192.0.2.9, 192.0.2.6"], False),
        ("192.0.2.6", ["192.0.2.9", "192.0.2.6"], False),
        ("192.0.2.6", ["192.0.2.6:5678"], False),
        ("2001:db8::6", ["2001:db8::6"], False),
        ("2001:db8::6", ["[2001:db8:0::6]:5678"], False),
        ("192.0.2.6", ["::ffff:192.0.2.6"], False),
        ("10.0.0.3", ["192.0.2.9, 192.0.2.6"], True),
        ("10.0.0.3", ["unknown"], True),
    ],
)
def test_a_proxy_that_is_named_is_not_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, address: str, forwarded: list[str], told: bool
) -> None:
    """uvicorn puts what it has told in the place of its address; another one is told of all the same."""
    (tmp_path / "models").mkdir()
    settings = Settings(
        models=tmp_path / "models", history=tmp_path / "history", trusted_proxies="10.0.0.1, 10.0.0.2"
    )
    with TestClient(create_app(settings), client=(address, 1)) as client:
        client.get("/health/live", headers=[("X-Forwarded-For", one) for one in forwarded])
    assert (PROXY in caplog.text) is told


@pytest.mark.parametrize(("address", "told"), [("203.0.113.9", False), ("203.0.113.8", True)])
def test_a_header_full_of_addresses_is_not_gone_through(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    told: bool,
) -> None:
    looked_at: list[str] = []
    without_port = guard._without_port

    def counted(part: str) -> str:
        looked_at.append(part)
        return without_port(part)

    monkeypatch.setattr(guard, "_without_port", counted)
    (tmp_path / "models").mkdir()
    settings = Settings(models=tmp_path / "models", history=tmp_path / "history", trusted_proxies="10.0.0.1")
    with TestClient(create_app(settings), client=(address, 1)) as client:
        client.get("/health/live", headers=[(b"x-forwarded-for", b"," * 60_000 + b"203.0.113.9")])
    assert len(looked_at) <= 16
    assert (PROXY in caplog.text) is told
