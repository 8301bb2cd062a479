import re
from typing import Any

import pytest
from sqlalchemy import select

from app.auth import key_store as module
from app.auth.audit import Audit
from app.auth.key_store import KeyStore
from app.auth.permissions import COMMAND_LINE
from app.auth.sessions import SessionStore
from app.database import clock, tables
from app.database.engine import Database
from app.errors.problems import Problem
from app.schemas.access import Role


@pytest.fixture
def keys(database: Database) -> KeyStore:
    return KeyStore(database)


def test_key_has_an_id_and_256_random_bits(keys: KeyStore) -> None:
    key, text = keys.create(COMMAND_LINE, Role.LINE, "line 3")
    assert re.fullmatch(module.PATTERN, text)
    assert text.startswith(f"fg_{key.id}_")
    texts = {keys.create(COMMAND_LINE, Role.LINE, "line 3")[1] for _ in range(20)}
    assert len({t[20:] for t in texts} | {text[20:]}) == 21


def test_database_stores_no_secret(keys: KeyStore, database: Database) -> None:
    key, text = keys.create(COMMAND_LINE, Role.ADMIN, "admin")
    secret = text.split("_", 2)[2]
    keys.revoke(COMMAND_LINE, key.id)
    with database.read() as connection:
        for table in tables.metadata.sorted_tables:
            for row in connection.execute(select(table)):
                assert secret not in str(row)
    assert secret not in repr(key)
    assert key.secret_sha256 not in repr(key)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": ""}, "name: .* at least 1 character; got ''"),
        ({"name": "x" * 129}, "at most 128"),
        ({"name": "a\nb"}, "name: must be visible"),
        ({"categories": []}, "categories: .* at least 1 item"),
        ({"categories": ["../x"]}, r"categories.0: .* got '\.\./x'"),
        ({"expires_days": 0}, "got '0'"),
        ({"expires_days": 36501}, "got '36501'"),
        ({"requests_per_minute": 0}, "requests_per_minute: .* got '0'"),
        ({"requests_per_minute": 2**31}, "got '2147483648'"),
    ],
)
def test_value_out_of_range_is_refused(keys: KeyStore, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(Problem, match=message):
        keys.create(COMMAND_LINE, Role.LINE, **{"name": "name", **wrong})
    assert keys.list() == []


def test_key_is_revoked_once_and_stays_listed(keys: KeyStore, database: Database) -> None:
    key, _ = keys.create(COMMAND_LINE, Role.LINE, "name")
    other, _ = keys.create(COMMAND_LINE, Role.LINE, "other")
    first = keys.revoke(COMMAND_LINE, key.id)
    assert first.invalid_reason(clock.now_ms()) == "has been revoked"
    assert keys.revoke(COMMAND_LINE, key.id) == first
    assert {k.id: k.revoked_ms is None for k in keys.list()} == {key.id: False, other.id: True}
    assert [entry.action for entry in Audit(database).page(10)] == ["key.revoke", "key.create", "key.create"]


def test_revocation_ends_only_the_keys_sessions(keys: KeyStore, database: Database) -> None:
    key, _ = keys.create(COMMAND_LINE, Role.LINE, "name")
    other, _ = keys.create(COMMAND_LINE, Role.LINE, "other")
    for one in (key, key, other):
        SessionStore(database).open(one.id, 1)
    keys.revoke(COMMAND_LINE, key.id)
    with database.read() as connection:
        assert [row.key_id for row in connection.execute(select(tables.sessions))] == [other.id]
