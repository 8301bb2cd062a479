"""Advisory locks of PostgreSQL, which order the work of several servers.

SQLite needs none of them: it has one writer at a time, and one server.
"""

from typing import Final

from sqlalchemy import Connection, func, select

# Every number that FlowGauge uses; other programs in the same database must avoid them.
UPGRADE: Final = 4661783
EVENT_ORDER: Final = 4661784
LEADER: Final = 4661785
FILES: Final = 4661786
MODELS: Final = 4661787
JOBS: Final = 4661788


def take(
    connection: Connection,
    number: int,
    name: str | None = None,
    *,
    shared: bool = False,
    wait_ms: int | None = None,
) -> None:
    """Take a lock until the end of the transaction; no-op on SQLite.

    Args:
        name: of one of many locks with the same number, such as a category. The lock without a name is
            another lock, not all of them.
        shared: only an exclusive lock excludes it.
        wait_ms: of this and later locks of the transaction; None for the default.
    """
    if connection.dialect.name == "postgresql":
        if wait_ms is not None:
            connection.execute(select(func.set_config("lock_timeout", str(wait_ms), True)))
        lock = func.pg_advisory_xact_lock_shared if shared else func.pg_advisory_xact_lock
        connection.execute(select(lock(number) if name is None else lock(number, func.hashtext(name))))
