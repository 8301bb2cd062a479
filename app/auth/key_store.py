"""API keys in the database, which stores no secrets.

A key is `fg_<id>_<secret>`. The id is 16 hexadecimal digits and public; the secret is 256 random bits as
URL-safe base64. The database stores its SHA-256: 256 random bits cannot be searched, so no slow hash is
needed. Keys are never deleted, so that an id in the history or the audit log always leads to a name.
"""

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError
from sqlalchemy import Connection, delete, insert, select, update

from app.auth.audit import Audit
from app.auth.permissions import Caller
from app.database import clock, tables
from app.database.engine import Database
from app.database.notifications import notify
from app.errors.problems import Problem
from app.schemas import access as schemas
from app.schemas.access import Role

PATTERN: Final = r"fg_([0-9a-f]{16})_([A-Za-z0-9_-]{43})"  # id and secret

_DAY_MS = 24 * 60 * 60 * 1000
_COLUMNS = tables.keys.columns


@dataclass(frozen=True)
class ApiKey:
    """An API key without its secret. Times are milliseconds since 1970, UTC.

    Attributes:
        categories: the allowed categories; None for all.
        requests_per_minute: its own limit; None for the server's.
        expires_ms: first moment at which it is invalid; None for never.
        revoked_ms: time of revocation; None if it is not revoked.
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
        """The caller that this key identifies."""
        return Caller(self.id, self.name, self.role, self.categories)

    def invalid_reason(self, now_ms: int) -> str | None:
        """Return the reason why the key is invalid at a time; None if it is valid."""
        if self.revoked_ms is not None:
            return "has been revoked"
        if self.expires_ms is not None and now_ms >= self.expires_ms:
            return "has expired"
        return None

    def to_schema(self) -> schemas.Key:
        return schemas.Key(
            id=self.id,
            name=self.name,
            role=self.role,
            categories=None if self.categories is None else sorted(self.categories),
            requests_per_minute=self.requests_per_minute,
            created=clock.iso(self.created_ms),
            expires=None if self.expires_ms is None else clock.iso(self.expires_ms),
            revoked=None if self.revoked_ms is None else clock.iso(self.revoked_ms),
            valid=self.invalid_reason(clock.now_ms()) is None,
        )


class KeyStore:
    """The keys in the database. Safe to use from several threads and processes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._audit = Audit(database)

    def create(
        self, caller: Caller, role: Role, name: str, request_id: str | None = None, **limits: Any
    ) -> tuple[ApiKey, str]:
        """Create a key, and an entry in the audit log.

        Args:
            limits: categories, expires_days and requests_per_minute, as in `access.NewKey`.

        Returns:
            The key and its text, which cannot be recovered later.

        Raises:
            Problem: invalid-request; a value is out of range.
        """
        try:
            new = schemas.NewKey(role=role, name=name, **limits)
        except ValidationError as error:
            raise Problem("invalid-request", "; ".join(map(_explain, error.errors()))) from error
        secret = secrets.token_urlsafe(32)
        now = clock.now_ms()
        row = {
            "id": secrets.token_hex(8),
            "name": new.name,
            "role": new.role.value,
            "secret_sha256": sha256(secret),
            "categories": None if new.categories is None else json.dumps(sorted(set(new.categories))),
            "requests_per_minute": new.requests_per_minute,
            "created_ms": now,
            "expires_ms": None if new.expires_days is None else now + new.expires_days * _DAY_MS,
            "revoked_ms": None,
        }
        key = _key(row)
        logged = {"name", "role", "categories", "expires", "requests_per_minute"}
        detail = key.to_schema().model_dump(mode="json", include=logged)
        with self._database.write() as connection:
            connection.execute(insert(tables.keys).values(row))
            notify(connection, "keys")
            self._audit.write(caller, "key.create", key.id, "done", detail, request_id, connection)
        return key, f"fg_{key.id}_{secret}"

    def revoke(self, caller: Caller, key_id: str, request_id: str | None = None) -> ApiKey:
        """Revoke a key and end its sessions. Revoking it again changes nothing.

        Raises:
            Problem: not-found.
        """
        with self._database.write() as connection:
            key = _find(connection, key_id)
            if key.revoked_ms is None:
                revoked = {"revoked_ms": clock.now_ms()}
                connection.execute(update(tables.keys).where(_COLUMNS.id == key_id).values(revoked))
                connection.execute(delete(tables.sessions).where(tables.sessions.c.key_id == key_id))
                notify(connection, "keys")
                detail = {"name": key.name, "role": key.role.value}
                self._audit.write(caller, "key.revoke", key_id, "done", detail, request_id, connection)
            return _find(connection, key_id)

    def get(self, key_id: str) -> ApiKey:
        """Return a key, or raise the problem not-found."""
        with self._database.read() as connection:
            return _find(connection, key_id)

    def list(self) -> list[ApiKey]:
        """Return all keys, the oldest first, invalid ones included."""
        with self._database.read() as connection:
            return read_all(connection)


def read_all(connection: Connection) -> list[ApiKey]:
    """Read all keys, the oldest first."""
    query = select(tables.keys).order_by(_COLUMNS.created_ms, _COLUMNS.id)
    return [_key(row) for row in connection.execute(query).mappings()]


def sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _find(connection: Connection, key_id: str) -> ApiKey:
    row = connection.execute(select(tables.keys).where(_COLUMNS.id == key_id)).mappings().one_or_none()
    if row is None:
        raise Problem("not-found", f"There is no key {key_id[:64]!r}; list the keys to see all ids.")
    return _key(row)


def _key(row: Mapping[Any, Any]) -> ApiKey:
    categories = None if row["categories"] is None else frozenset(json.loads(row["categories"]))
    return ApiKey(**{**row, "role": Role(row["role"]), "categories": categories})


def _explain(item: Mapping[str, Any]) -> str:
    where = ".".join(map(str, item["loc"]))
    return f"{where}: {item['msg'].removeprefix('Value error, ')}; got {str(item['input'])[:64]!r}"
