"""Copies of the history's database: SQLite's online backup, or pg_dump."""

import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Final

from sqlalchemy.engine import URL

from app.backup.folder import BackupError
from app.database.engine import Database

# Users log in again after a restore. A restored history gets its own identity at its first start.
_LEFT_OUT: Final = ("sessions", "identity", "idempotency_claims")


def dump(database: Database, target: Path) -> None:
    """Copy a database into a file while it may be in use.

    Raises:
        BackupError: the database is damaged, or pg_dump fails.
    """
    if not database.is_sqlite:
        left_out = (f"--exclude-table-data={table}" for table in _LEFT_OUT)
        _run(database.engine.url, "pg_dump", "--format=custom", f"--file={target}", *left_out)
        return
    path = Path(database.engine.url.database or "").absolute()
    try:
        source = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)
        with closing(source) as live, closing(sqlite3.connect(target)) as copy:
            live.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
            # Without this check, copies of a damaged database would replace the good ones night by night.
            [first, *_] = copy.execute("PRAGMA quick_check").fetchone()
            if first != "ok":
                raise BackupError(f"the database {path} is damaged: {first}")
            with copy:
                for table in _LEFT_OUT:
                    copy.execute(f"DELETE FROM {table}")  # noqa: S608 (constant names)
    except sqlite3.DatabaseError as error:
        raise BackupError(f"the database {path} cannot be copied: {error}") from error


def load_postgresql(database: Database, source: Path) -> None:
    """Fill an empty PostgreSQL database from a file of pg_dump, in one transaction.

    Raises:
        BackupError: pg_restore fails.
    """
    _run(database.engine.url, "pg_restore", "--single-transaction", "--exit-on-error", str(source))


def _run(url: URL, program: str, *options: str) -> None:
    """Run a PostgreSQL program; the password is passed by environment, not on the command line."""
    from psycopg.conninfo import make_conninfo

    arguments = {**url.translate_connect_args(database="dbname", username="user"), **url.query}
    password = arguments.pop("password", None)
    environment = os.environ | ({} if password is None else {"PGPASSWORD": str(password)})
    command = [program, f"--dbname={make_conninfo('', **arguments)}", "--no-owner", "--no-privileges"]
    try:
        done = subprocess.run(  # noqa: S603 (a program of PostgreSQL, no shell)
            [*command, *options], env=environment, capture_output=True, text=True, errors="replace"
        )
    except FileNotFoundError as error:
        raise BackupError(
            f"{program} is not installed; backups of a history in PostgreSQL need it. On Debian: apt-get "
            "install postgresql-client, of the server's version or later"
        ) from error
    if done.returncode:
        raise BackupError(f"{program} failed: {done.stderr.strip()[-2000:]}")
