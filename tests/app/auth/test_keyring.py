import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import delete, text

from app.auth import keyring as module
from app.auth.key_store import KeyStore
from app.auth.keyring import Keyring
from app.auth.permissions import COMMAND_LINE
from app.auth.sessions import SessionStore
from app.database import clock, tables
from app.database.engine import Database
from app.errors.problems import Problem
from app.schemas.access import Role
from tests.support.waiting import eventually, until


@pytest.fixture
def keys(database: Database) -> KeyStore:
    return KeyStore(database)


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


def is_open(keyring: Keyring, text: str) -> bool:
    try:
        keyring.require_key(text)
    except Problem:
        return False
    return True


def test_only_the_exact_key_is_accepted(database: Database, keys: KeyStore) -> None:
    key, key_text = keys.create(COMMAND_LINE, Role.LINE, "line 3")
    other, other_text = keys.create(COMMAND_LINE, Role.ADMIN, "other")
    keyring = Keyring(database)
    assert keyring.require_key(key_text) == key
    secret = key_text.split("_", 2)[2]
    changed = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    near = [
        "",
        secret,
        f"fg_{key.id}_",
        f"fg_{key.id}_{changed}",
        f"fg_{other.id}_{secret}",
        f"fg_{key.id}_{key.secret_sha256[:43]}",
        key_text + "\n",
        key_text.replace(key.id, "0" * 16),
    ]
    assert not any(is_open(keyring, wrong) for wrong in near)
    assert keyring.require_key(other_text) == other


def test_revocation_is_revealed_only_with_the_secret(database: Database, keys: KeyStore) -> None:
    key, key_text = keys.create(COMMAND_LINE, Role.LINE, "name")
    keys.revoke(COMMAND_LINE, key.id)
    keyring = Keyring(database)
    assert "has been revoked" in detail(lambda: keyring.require_key(key_text))
    wrong = f"fg_{key.id}_{'x' * 43}"
    unknown = f"fg_{'0' * 16}_{'x' * 43}"
    assert detail(lambda: keyring.require_key(wrong)) == detail(lambda: keyring.require_key(unknown))


def test_key_expires_exactly_at_its_time(
    database: Database, keys: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_764_000_000_000
    monkeypatch.setattr(clock, "now_ms", lambda: now)
    key, key_text = keys.create(COMMAND_LINE, Role.VIEWER, "name", expires_days=1)
    hour, week = (SessionStore(database).open(key.id, hours) for hours in (1, 24 * 7))
    keyring = Keyring(database)
    now += 3_600_000 - 1
    assert keyring.require_session(hour) == key
    now += 1
    assert "has ended" in detail(lambda: keyring.require_session(hour))
    now += 23 * 3_600_000 - 1
    assert keyring.require_key(key_text) == keyring.require_session(week) == key
    now += 1
    assert "has expired" in detail(lambda: keyring.require_key(key_text))
    assert "has ended" in detail(lambda: keyring.require_session(week))


def test_keys_stay_required_after_the_first(database: Database, keys: KeyStore) -> None:
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


def test_changes_of_another_process_are_loaded(running: Keyring, keys: KeyStore, database: Database) -> None:
    assert not running.required
    key, key_text = keys.create(COMMAND_LINE, Role.ADMIN, "name")
    eventually(lambda: running.required)
    assert running.require_key(key_text) == key
    session = SessionStore(database).open(key.id, 1)
    running.reload()
    assert running.require_session(session) == key
    keys.revoke(COMMAND_LINE, key.id)
    eventually(lambda: not is_open(running, key_text))
    assert "has ended" in detail(lambda: running.require_session(session))


def test_failing_database_keeps_keys_and_is_logged_once(
    running: Keyring, keys: KeyStore, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    key, key_text = keys.create(COMMAND_LINE, Role.ADMIN, "name")
    eventually(lambda: running.required)
    with database.write() as connection:
        connection.execute(text("ALTER TABLE keys RENAME TO hidden"))
    eventually(lambda: any("cannot read the keys" in message for message in caplog.messages))
    assert running.require_key(key_text) == key
    assert running.required
    with database.write() as connection:
        connection.execute(text("ALTER TABLE hidden RENAME TO keys"))
    eventually(lambda: any("can be read again" in message for message in caplog.messages))
    assert sum("cannot read the keys" in message for message in caplog.messages) == 1  # not every 20 ms
    keys.revoke(COMMAND_LINE, key.id)
    eventually(lambda: not is_open(running, key_text))


def test_close_stops_the_thread(database: Database) -> None:
    before = set(threading.enumerate())
    keyring = Keyring(database)
    keyring.close()  # never started
    keyring = Keyring(database)
    keyring.start()
    keyring.close()
    assert not [one for one in set(threading.enumerate()) - before if one.name == "keyring"]


@pytest.mark.anyio
async def test_unknown_callers_share_few_reloads(
    postgres_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOKUP_SECONDS", 0.5)
    keyring = Keyring(postgres_database)
    _, key_text = KeyStore(postgres_database).create(COMMAND_LINE, Role.ADMIN, "of another server")
    begun: list[float] = []
    reload = keyring.reload

    def count() -> None:
        begun.append(time.monotonic())
        reload()

    monkeypatch.setattr(keyring, "reload", count)
    await asyncio.gather(*(keyring.look_up() for _ in range(100)))
    assert len(begun) == 1
    assert is_open(keyring, key_text)
    first = asyncio.create_task(keyring.look_up())
    await until(lambda: len(begun) == 2)
    assert begun[1] - begun[0] > 0.25  # but for the start of a thread
    # Whoever comes while one runs may have been missed by it.
    await asyncio.gather(first, *(keyring.look_up() for _ in range(100)))
    assert len(begun) == 3


@pytest.mark.anyio
async def test_one_server_looks_nothing_up(database: Database, keys: KeyStore) -> None:
    keyring = Keyring(database)
    _, key_text = keys.create(COMMAND_LINE, Role.ADMIN, "of the command line")
    await keyring.look_up()
    assert not is_open(keyring, key_text)
