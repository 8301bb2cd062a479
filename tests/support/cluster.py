"""Servers beside each other: one PostgreSQL database and one store, behind nginx with the file of deploy/."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.auth.key_store import KeyStore
from app.auth.permissions import COMMAND_LINE
from app.client.sync import Client
from app.database.engine import Database
from app.schemas.access import Role
from tests.support.certificates import Certificate, make_certificate
from tests.support.nginx import nginx
from tests.support.server import Server

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "cluster" / "nginx.conf"


@dataclass(frozen=True)
class Cluster:
    """Two running servers and the nginx in front of them; `key` is an administrator's."""

    servers: tuple[Server, Server]
    database: Database
    url: str
    key: str
    tls: Certificate

    def client(self, patience: float = 120) -> Client:
        """Make the project's client, which sends its requests to nginx."""
        return Client(self.url, self.key, ca=self.tls.certificate, patience=patience)

    def journals(self) -> list[Path]:
        return [server.history / "journal" for server in self.servers]


@contextmanager
def cluster(
    work: Path, models: Path, database_url: str, store: str, **settings: str | int
) -> Iterator[Cluster]:
    """Start two servers, each with folders of its own, and nginx.

    Args:
        work: folder of all files of the servers; created.
        models: the models that the first server has at its start.
        database_url: an empty PostgreSQL database.
        store: URL of the store.
        settings: others of both servers, as for `Server`; a database's in place of `database_url`.
    """
    database = Database(database_url)
    database.upgrade()
    _, key = KeyStore(database).create(COMMAND_LINE, Role.ADMIN, "the first")
    work.mkdir()
    own = [work / f"models-{number}" for number in (1, 2)]
    shutil.copytree(models, own[0])
    own[1].mkdir()
    shared = {"database": database_url, "store": store, "trusted_proxies": "127.0.0.1", **settings}
    servers = Server(own[0], work / "server-1", **shared), Server(own[1], work / "server-2", **shared)
    tls = make_certificate(work, "DNS:localhost", "IP:127.0.0.1")
    upstreams = {f"server-{n}:8000 resolve": server.port for n, server in enumerate(servers, 1)}
    with ExitStack() as stack:
        stack.callback(database.close)
        for server in servers:  # the first one publishes its models
            stack.enter_context(server)
        port, _ = stack.enter_context(nginx(work / "nginx", CONFIGURATION, upstreams, tls))
        yield Cluster(servers, database, f"https://127.0.0.1:{port}", key, tls)
