"""Claims of idempotency keys: among the servers of one PostgreSQL, only one inspects for a key.

A server claims a key before the inspection. The claim ends in the transaction that files the inspection, or
when the request fails. The claims of a killed server end once its next start has filed its journal; if it
does not come back, they expire. A server renews its claims while its journal waits.
"""

import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, delete, text, tuple_, update

from app.database.engine import Database
from app.database.shared_tables import idempotency_claims
from app.history.queries import EarlierAnswer, find_idempotent
from flows.fastflow.files.atomic_files import replace_file

# Longer than a server needs to start again, and than the writer waits between two attempts.
_EXPIRES_MS: Final = 120_000
_COLUMNS: Final = idempotency_claims.columns
# The clocks of servers differ, so the database's counts.
_NOW_MS: Final = "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)"
# As text, because SQLAlchemy would compile it anew for each request. A server has one request with a key at a
# time, so a claim of its own is left over.
_CLAIM: Final = text(
    f"""
    INSERT INTO idempotency_claims AS held (idempotency_key, key_id, server, token, claimed_ms)
    VALUES (:key, :key_id, :server, :token, {_NOW_MS})
    ON CONFLICT (idempotency_key, key_id) DO UPDATE
        SET server = excluded.server, token = excluded.token, claimed_ms = excluded.claimed_ms
        WHERE held.server = excluded.server OR held.claimed_ms < excluded.claimed_ms - {_EXPIRES_MS}
    RETURNING 1
    """  # noqa: S608 (a constant)
)


class KeyIsClaimed(Exception):  # noqa: N818  (a temporary state)
    """Another server holds the key."""


def read_server_id(folder: Path) -> str:
    """Read the id of the server that owns a history folder, or create one."""
    path = folder / "server-id"
    if not path.exists():
        replace_file(path, str(uuid.uuid4()).encode(), sync=True)
    return path.read_text()


class IdempotencyClaims:
    """The claims of one server. A `token` names one request; later requests have greater ones."""

    def __init__(self, database: Database, server: str) -> None:
        self._database = database
        self._server = server

    def find_or_claim(self, key_id: str | None, key: str, token: str) -> EarlierAnswer | None:
        """Find the inspection of a caller's key; without one, claim the key and return None.

        Raises:
            KeyIsClaimed: by another server, whose inspection is not filed yet.
            DatabaseUnavailable: nothing is claimed.
        """
        values = {"key": key, "key_id": key_id or "", "server": self._server, "token": token}
        with self._database.write() as connection:
            is_mine = connection.execute(_CLAIM, values).first() is not None
            # After the claim and in a statement of its own, which sees what was committed until now: the
            # other server ends its claim together with filing the inspection.
            earlier = find_idempotent(connection, key_id, key)
            if earlier is not None:
                connection.rollback()
        if earlier is None and not is_mine:
            raise KeyIsClaimed
        return earlier

    def renew(self) -> None:
        """Keep this server's claims from expiring."""
        with self._database.write() as connection:
            connection.execute(
                update(idempotency_claims)
                .where(_COLUMNS.server == self._server)
                .values(claimed_ms=text(_NOW_MS))
            )

    def release(self, key_id: str | None, key: str, token: str) -> None:
        """End the claim of a failed request, unless a later request has taken it over."""
        with self._database.write() as connection:
            connection.execute(
                delete(idempotency_claims).where(
                    _COLUMNS.idempotency_key == key,
                    _COLUMNS.key_id == (key_id or ""),
                    _COLUMNS.token == token,
                )
            )

    def end_earlier(self, token: str) -> None:
        """End this server's claims from before a token, after the journal of that time was filed."""
        with self._database.write() as connection:
            connection.execute(
                delete(idempotency_claims).where(_COLUMNS.server == self._server, _COLUMNS.token < token)
            )


def end_claims(connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """End the claims of inspections, in the transaction that files them. SQLite has no claims."""
    keys = [
        (row["idempotency_key"], row["key_id"] or "") for row in rows if row["idempotency_key"] is not None
    ]
    if keys and connection.dialect.name == "postgresql":
        connection.execute(
            delete(idempotency_claims).where(tuple_(_COLUMNS.idempotency_key, _COLUMNS.key_id).in_(keys))
        )
