"""Keys: made, listed and revoked in the database, which has no secret that could be stolen from it.

A key is `fg_<id>_<secret>`: the id is 16 hexadecimal digits and no secret, the secret 256 random bits as
URL-safe base64. Kept is the secret's SHA-256; so many random bits need no slow hash, as nobody can try them
all. A key is never deleted, so that an id in the history or the audit log always leads to its name.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from app.access import Caller, Role
from app.audit import Audit
from app.database import clock, tables
from app.database.engine import Database

PATTERN: Final = r"fg_([0-9a-f]{16})_([A-Za-z0-9_-]{43})"  # id and secret
ID_PATTERN: Final = r"^[0-9a-f]{16}$"
MAX_NAME: Final = 128
CATEGORY_PATTERN: Final = r"^[a-z0-9][a-z0-9_-]{0,63}$"
MAX_CATEGORIES: Final = 200
MAX_DAYS: Final = 36_500
MAX_REQUESTS_PER_MINUTE: Final = 1_000_000

_DAY_MS = 24 * 60 * 60 * 1000


class KeysError(ValueError):
    """A key cannot be made as it was asked for, or there is no such key."""


@dataclass(frozen=True)
class Key:
    """A key, without its secret.

    Attributes:
        id: 16 hexadecimal digits.
        name: what people call it.
        role: what it may do.
        secret_sha256: SHA-256 of its secret, hexadecimal.
        categories: the only categories it is for; None for all.
        requests_per_minute: its own limit, or None.
        created_ms: when it was made; this and the next two in milliseconds since 1970, UTC.
        expires_ms: the first moment at which it is no longer valid, or None.
        revoked_ms: when it was revoked, or None.
    """

    id: str
    name: str
    role: Role
    secret_sha256: str = field(repr=False)
    categories: frozenset[str] | None
    requests_per_minute: int | None
    created_ms: int
    expires_ms: int | None
    revoked_ms: int | None

    @property
    def caller(self) -> Caller:
        """Whoever comes with this key."""
        return Caller(self.id, self.name, self.role, self.categories)

    def fault(self, now_ms: int) -> str | None:
        """Why the key is not valid at a time, or None."""
        if self.revoked_ms is not None:
            return "has been revoked"
        if self.expires_ms is not None and now_ms >= self.expires_ms:
            return "has expired"
        return None


class Keys:
    """The keys in the database. May be used from several threads and processes at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._audit = Audit(database)

    def create(
        self,
        caller: Caller,
        role: Role,
        name: str,
        *,
        categories: Collection[str] | None = None,
        expires_days: float | None = None,
        requests_per_minute: int | None = None,
        request_id: str | None = None,
    ) -> tuple[Key, str]:
        """Make a key, and an entry in the audit log.

        Args:
            caller: who makes it.
            role: what it may do.
            name: what people call it; 1 to 128 characters.
            categories: the only categories it is for; None for all.
            expires_days: for how many days it is valid; None for always.
            requests_per_minute: its own limit.
            request_id: of the request that asked for it.

        Returns:
            The key and its text, which cannot be had again.

        Raises:
            KeysError: a value is out of range.
        """
        _check(name, categories, expires_days, requests_per_minute)
        secret = secrets.token_urlsafe(32)
        now = clock.now_ms()
        key = Key(
            id=secrets.token_hex(8),
            name=name,
            role=role,
            secret_sha256=sha256(secret),
            categories=None if categories is None else frozenset(categories),
            requests_per_minute=requests_per_minute,
            created_ms=now,
            expires_ms=None if expires_days is None else now + round(expires_days * _DAY_MS),
            revoked_ms=None,
        )
        names = None if key.categories is None else sorted(key.categories)
        values = {**vars(key), "role": role.value, "categories": None if names is None else json.dumps(names)}
        detail = {
            "name": name,
            "role": role.value,
            "categories": names,
            "expires": None if key.expires_ms is None else clock.iso(key.expires_ms),
            "requests_per_minute": requests_per_minute,
        }
        with self._database.write() as connection:
            connection.execute(insert(tables.keys).values(values))
            self._audit.add(connection, caller, "key.create", key.id, "done", detail, request_id)
        return key, f"fg_{key.id}_{secret}"

    def revoke(self, caller: Caller, key_id: str, request_id: str | None = None) -> Key:
        """Make a key and its sessions invalid for ever. Revoking it again changes nothing.

        Raises:
            KeysError: there is no such key.
        """
        with self._database.write() as connection:
            key = _find(connection, key_id)
            if key.revoked_ms is None:
                connection.execute(
                    update(tables.keys)
                    .where(tables.keys.c.id == key_id, tables.keys.c.revoked_ms.is_(None))
                    .values(revoked_ms=clock.now_ms())
                )
                connection.execute(delete(tables.sessions).where(tables.sessions.c.key_id == key_id))
                detail = {"name": key.name, "role": key.role.value}
                self._audit.add(connection, caller, "key.revoke", key_id, "done", detail, request_id)
            return _find(connection, key_id)

    def get(self, key_id: str) -> Key:
        """A key by its id.

        Raises:
            KeysError: there is no such key.
        """
        with self._database.read() as connection:
            return _find(connection, key_id)

    def list(self) -> list[Key]:
        """All keys, the oldest first, with those that are no longer valid."""
        with self._database.read() as connection:
            return read_all(connection)


def read_all(connection: Connection) -> list[Key]:
    """All keys, the oldest first."""
    query = select(tables.keys).order_by(tables.keys.c.created_ms, tables.keys.c.id)
    return [_key(row) for row in connection.execute(query).mappings()]


def sha256(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _find(connection: Connection, key_id: str) -> Key:
    if re.fullmatch(ID_PATTERN, key_id):
        rows = connection.execute(select(tables.keys).where(tables.keys.c.id == key_id)).mappings().all()
        if rows:
            return _key(rows[0])
    raise KeysError(f"there is no key {key_id[:64]!r}; `flowgauge keys list` shows those there are")


def _key(row: RowMapping) -> Key:
    categories: list[str] | None = None if row["categories"] is None else json.loads(row["categories"])
    values: dict[str, Any] = {
        **row,
        "role": Role(row["role"]),
        "categories": None if categories is None else frozenset(categories),
    }
    return Key(**values)


def _check(
    name: str,
    categories: Collection[str] | None,
    expires_days: float | None,
    requests_per_minute: int | None,
) -> None:
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        raise KeysError(f"a key's name is 1 to {MAX_NAME} visible characters; got {name[:MAX_NAME]!r}")
    if categories is not None and not 1 <= len(categories) <= MAX_CATEGORIES:
        raise KeysError(f"a key is for all categories, or for 1 to {MAX_CATEGORIES}; got {len(categories)}")
    for category in categories or ():
        if not re.fullmatch(CATEGORY_PATTERN, category):
            raise KeysError(
                f"a category is 1 to 64 of a-z 0-9 _ -, first a letter or digit; got {category[:64]!r}"
            )
    if expires_days is not None and not 0 < expires_days <= MAX_DAYS:
        raise KeysError(f"a key is valid for up to {MAX_DAYS} days; got {expires_days}")
    if requests_per_minute is not None and not 1 <= requests_per_minute <= MAX_REQUESTS_PER_MINUTE:
        raise KeysError(f"requests per minute are 1 to {MAX_REQUESTS_PER_MINUTE}; got {requests_per_minute}")
