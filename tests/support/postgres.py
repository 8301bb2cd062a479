"""A real PostgreSQL server for tests, from the binaries that Debian's packages install."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import psycopg
from sqlalchemy import text

from app.database.engine import Database

_START_SECONDS = 60.0


def binaries() -> Path | None:
    """Return the folder of the newest installed server's programs, or None."""
    versions = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    return max((path.parent for path in versions), key=lambda folder: int(folder.parent.name), default=None)


class Postgres:
    """A server in a temporary folder, reached through a socket in that folder: no port can be taken.

    As root the server runs as the user postgres, for it refuses to be root. It ends with this process,
    however that ends. What it has written is not synced to disk.

    Args:
        programs: the folder of `initdb` and `postgres`.
    """

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        # Not pytest's folder: the server's user may not enter it, and the path of a socket must be short.
        self._root = Path(tempfile.mkdtemp(prefix="fg-postgres-", dir="/tmp"))
        self._process: subprocess.Popen[bytes] | None = None
        self._made = 0

    def __enter__(self) -> Self:
        try:
            if os.geteuid() == 0:
                shutil.chown(self._root, "postgres", "postgres")
            data = self._root / "data"
            subprocess.run(
                [
                    *_as_server_user(),
                    self._programs / "initdb",
                    *("--pgdata", data, "--username=postgres", "--auth=trust", "--no-sync"),
                    *("--encoding=UTF8", "--locale=C.UTF-8"),
                ],
                check=True,
                capture_output=True,
                cwd=self._root,
            )
            with (data / "postgresql.auto.conf").open("a") as file:
                file.write(
                    f"unix_socket_directories = '{self._root}'\nlisten_addresses = ''\nfsync = off\n"
                    "full_page_writes = off\nshared_buffers = 32MB\nmax_connections = 100\n"
                )
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._root, ignore_errors=True)

    @property
    def folder(self) -> Path:
        """Folder of the server's socket."""
        return self._root

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        log = self._root / "log"
        with log.open("ab") as output:
            command = [*_as_server_user(), str(self._programs / "postgres"), "-D", str(self._root / "data")]
            self._process = subprocess.Popen(command, stdout=output, stderr=output, cwd=self._root)
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self._execute("SELECT 1")
            except psycopg.OperationalError as error:
                if self._process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                self.stop()
                raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()[-2000:]}") from error
            return

    def kill(self) -> None:
        """Kill the server with SIGKILL; its processes end when they notice, its data stays."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        """Stop the server at once; its clients lose their connections, its data stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait(20)
            self._process = None

    @contextmanager
    def database(self, encoding: str = "UTF8") -> Iterator[str]:
        """Create an empty database and return its URL."""
        self._made += 1
        name = f"test_{self._made}"
        how = "" if encoding == "UTF8" else f" ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
        self._execute(f"CREATE DATABASE {name}{how}")
        try:
            yield f"postgresql://postgres@/{name}?host={self._root}"
        finally:
            if self._process is not None:
                self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _execute(self, statement: Any) -> None:
        with psycopg.connect(
            host=str(self._root), user="postgres", dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(statement)


def is_waiting(database: Database, connections: int = 1) -> bool:
    """Tell if connections to the server of a database wait for a lock."""
    with database.read() as connection:
        waiting: int = connection.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")) or 0
    return waiting >= connections


def _as_server_user() -> list[str]:
    """Return options of `subprocess`: the user to run as, and to end with the parent."""
    user = ["--reuid=postgres", "--regid=postgres", "--init-groups"] if os.geteuid() == 0 else []
    return ["setpriv", "--pdeathsig=INT", *user, "--"]
