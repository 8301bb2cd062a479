import logging
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection, delete, text, update
from sqlalchemy.exc import SQLAlchemyError

from app import keyring as module
from app import keys as keys_module
from app.access import COMMAND_LINE, Role
from app.database import clock, tables
from app.database.engine import Database, DatabaseError
from app.keyring import Keyring
from app.keys import Keys
from app.problems import Problem
from app.sessions import Sessions
from tests.waiting import eventually


@pytest.fixture
def keys(database: Database) -> Keys:
    return Keys(database)


@pytest.fixture
def running(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keyring]:
    """A keyring that reloads every 20 ms."""
    monkeypatch.setattr(module, "RELOAD_SECONDS", 0.02)
    keyring = Keyring(database)
    keyring.start()
    yield keyring
    keyring.close()


def detail(act: Callable[[], object]) -> str:
    with pytest.raises(Problem) as caught:
        act()
    assert caught.value.name == "unauthenticated"
    return caught.value.detail


def test_opens_for_the_key_and_for_nothing_near_it(database: Database, keys: Keys) -> None:
    key, key_text = keys.create(COMMAND_LINE, Role.LINE, "line 3")
    other, other_text = keys.create(COMMAND_LINE, Role.ADMIN, "other")
    keyring = Keyring(database)
    assert keyring.expect_key(key_text) == key
    secret = key_text.split("_", 2)[2]
    changed = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    near = [
        "",
        "fg_",
        key.id,
        secret,
        key.secret_sha256,
        f"fg_{key.id}_",
        f"fg_{key.id}_{changed}",
        f"fg_{other.id}_{secret}",
        f"fg_{key.id}_{key.secret_sha256[:43]}",
        f"FG_{key.id}_{secret}",
        f"fg_{key.id}_{secret}=",
        key_text + "\n",
        key_text + " ",
        " " + key_text,
        key_text * 2,
        key_text.replace(key.id, "0" * 16),
        key_text.replace(key.id, key.id[:-1] + "٣"),
        "fg_" + "0" * 10_000_000,
    ]
    for wrong in near:
        told = detail(lambda wrong=wrong: keyring.expect_key(wrong))  # type: ignore[misc]
        assert secret not in told
        assert key.id not in told
    assert keyring.expect_key(other_text) == other


def test_only_who_has_the_secret_learns_that_a_key_is_revoked(database: Database, keys: Keys) -> None:
    key, key_text = keys.create(COMMAND_LINE, Role.LINE, "name")
    keys.revoke(COMMAND_LINE, key.id)
    keyring = Keyring(database)
    assert "has been revoked" in detail(lambda: keyring.expect_key(key_text))
    wrong = f"fg_{key.id}_{'x' * 43}"
    unknown = f"fg_{'0' * 16}_{'x' * 43}"
    assert detail(lambda: keyring.expect_key(wrong)) == detail(lambda: keyring.expect_key(unknown))


def test_expires_exactly_at_its_time(database: Database, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    key, key_text = keys.create(COMMAND_LINE, Role.VIEWER, "name", expires_days=1)
    session = Sessions(database).open(key.id, 24 * 7)
    keyring = Keyring(database)
    assert key.expires_ms is not None
    monkeypatch.setattr(clock, "now_ms", lambda: key.expires_ms - 1)
    assert keyring.expect_key(key_text) == keyring.expect_session(session) == key
    monkeypatch.setattr(clock, "now_ms", lambda: key.expires_ms)
    assert "has expired" in detail(lambda: keyring.expect_key(key_text))
    assert "has ended" in detail(lambda: keyring.expect_session(session))


def test_a_session_expires_exactly_at_its_time(
    database: Database, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, _ = keys.create(COMMAND_LINE, Role.VIEWER, "name")
    start = clock.now_ms()
    monkeypatch.setattr(clock, "now_ms", lambda: start)
    session = Sessions(database).open(key.id, 1)
    keyring = Keyring(database)
    monkeypatch.setattr(clock, "now_ms", lambda: start + 3_600_000 - 1)
    assert keyring.expect_session(session) == key
    monkeypatch.setattr(clock, "now_ms", lambda: start + 3_600_000)
    assert "has ended" in detail(lambda: keyring.expect_session(session))


def test_no_session_outlives_its_key(database: Database, keys: Keys) -> None:
    key, _ = keys.create(COMMAND_LINE, Role.VIEWER, "name")
    keys.revoke(COMMAND_LINE, key.id)
    session = Sessions(database).open(key.id, 1)  # by a server that has not seen it yet
    keyring = Keyring(database)
    assert "has ended" in detail(lambda: keyring.expect_session(session))


@pytest.mark.parametrize("secret", ["", "x", "x" * 43, "ÿ", "x" * 1_000_000])
def test_there_is_no_such_session(database: Database, keys: Keys, secret: str) -> None:
    key, _ = keys.create(COMMAND_LINE, Role.VIEWER, "name")
    Sessions(database).open(key.id, 1)
    keyring = Keyring(database)
    assert "has ended" in detail(lambda: keyring.expect_session(secret))


def test_keys_are_asked_for_from_the_first_on_for_ever(database: Database, keys: Keys) -> None:
    keyring = Keyring(database)
    assert not keyring.required
    key, _ = keys.create(COMMAND_LINE, Role.ADMIN, "name")
    keyring.reload()
    assert keyring.required
    keys.revoke(COMMAND_LINE, key.id)
    assert Keyring(database).required
    with database.write() as connection:
        connection.execute(delete(tables.keys))
    keyring.reload()
    assert keyring.required


def test_sees_what_another_process_changes(running: Keyring, keys: Keys, database: Database) -> None:
    assert not running.required
    key, key_text = keys.create(COMMAND_LINE, Role.ADMIN, "name")
    eventually(lambda: running.required)
    assert running.expect_key(key_text) == key
    session = Sessions(database).open(key.id, 1)
    running.reload()
    assert running.expect_session(session) == key
    keys.revoke(COMMAND_LINE, key.id)

    def refused() -> bool:
        try:
            running.expect_key(key_text)
        except Problem:
            return True
        return False

    eventually(refused)
    detail(lambda: running.expect_session(session))


def test_reloads_within_two_seconds() -> None:
    assert module.RELOAD_SECONDS <= 2


def test_a_database_that_fails_changes_nothing_and_the_log_says_so(
    running: Keyring, keys: Keys, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    key, key_text = keys.create(COMMAND_LINE, Role.ADMIN, "name")
    eventually(lambda: running.required)
    with database.write() as connection:
        connection.execute(text("ALTER TABLE keys RENAME TO hidden"))
    eventually(lambda: any("cannot be read" in message for message in caplog.messages))
    time.sleep(0.2)
    assert sum("cannot be read" in message for message in caplog.messages) == 1  # not every 20 ms
    assert running.expect_key(key_text) == key
    assert running.required
    detail(lambda: running.expect_key(f"fg_{key.id}_{'x' * 43}"))
    with database.write() as connection:
        connection.execute(text("ALTER TABLE hidden RENAME TO keys"))
    eventually(lambda: any("can be read again" in message for message in caplog.messages))
    with database.write() as connection:
        connection.execute(update(tables.keys).values(revoked_ms=1))
    running.reload()
    assert "has been revoked" in detail(lambda: running.expect_key(key_text))


def test_does_not_begin_without_a_database_it_can_read(database: Database) -> None:
    with database.write() as connection:
        connection.execute(text("ALTER TABLE keys RENAME TO hidden"))
    with pytest.raises((DatabaseError, SQLAlchemyError)):
        Keyring(database)


def test_a_slow_reload_never_brings_a_revoked_key_back(
    database: Database, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, key_text = keys.create(COMMAND_LINE, Role.ADMIN, "name")
    keyring = Keyring(database)
    has_read, may_go_on = threading.Event(), threading.Event()
    read_all = keys_module.read_all

    def slow(connection: Connection) -> object:
        found = read_all(connection)
        if threading.current_thread() is background:
            has_read.set()
            may_go_on.wait(10)
        return found

    monkeypatch.setattr(keys_module, "read_all", slow)
    background = threading.Thread(target=keyring.reload)
    background.start()
    assert has_read.wait(10)
    keys.revoke(COMMAND_LINE, key.id)
    threading.Timer(0.1, may_go_on.set).start()
    keyring.reload()
    assert "has been revoked" in detail(lambda: keyring.expect_key(key_text))
    background.join()
    assert "has been revoked" in detail(lambda: keyring.expect_key(key_text))


def test_stops_when_it_is_closed(database: Database) -> None:
    before = set(threading.enumerate())
    keyring = Keyring(database)
    keyring.start()
    [thread] = set(threading.enumerate()) - before
    assert thread.name.startswith("keyring")
    keyring.close()
    assert set(threading.enumerate()) <= before
    Keyring(database).close()  # never started


def test_the_log_has_no_secret(running: Keyring, keys: Keys, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    _, key_text = keys.create(COMMAND_LINE, Role.ADMIN, "name")
    eventually(lambda: running.required)
    running.expect_key(key_text)
    assert key_text.split("_", 2)[2] not in caplog.text
