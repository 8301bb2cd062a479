"""`flowgauge cluster serve` on a Ray cluster of this machine, with PostgreSQL and a store."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from app.auth.key_store import KeyStore
from app.auth.permissions import COMMAND_LINE
from app.database.engine import Database
from app.schemas.access import Role
from tests.support.ports import reserved_port
from tests.support.server import Server
from tests.support.waiting import eventually
from tests.system.processes import COMMAND
from tests.system.ray_cluster import Cluster, cluster


@dataclass(frozen=True)
class Deployed:
    """The service on a cluster with a replica on each node."""

    url: str
    key: str
    history: Path
    cluster: Cluster

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"X-API-Key": self.key}, timeout=60)

    def replicas(self) -> list[int]:
        """Process numbers of the replicas."""
        return self.cluster.processes("ServeReplica:flowgauge:service")


@contextmanager
def deployed_on(nodes: int, root: Path, database_url: str, models: Path) -> Iterator[Deployed]:
    """Deploy the service; the models folder becomes a copy of the shared one."""
    with cluster(nodes) as started:
        shared = {"database": database_url, "store": f"file://{root}/shared"}
        (root / "shared").mkdir()
        with Server(models, root / "first", **shared):
            pass  # it moves its models into the store
        database = Database(database_url)
        _, key = KeyStore(database).create(COMMAND_LINE, Role.ADMIN, "the first")
        database.close()
        holder, port = reserved_port()
        settings = {**shared, "history": str(root / "history"), "port": str(port), "threads": "1"}
        environment = started.environment | {f"FLOWGAUGE_{name.upper()}": v for name, v in settings.items()}
        log = root / "log.txt"
        command = [*COMMAND, "cluster", "serve", f"--address={started.address}", f"--replicas={nodes}"]
        with holder, log.open("w") as file:
            process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            eventually(lambda: process.poll() is not None or "Ctrl-C stops it" in log.read_text())
            assert process.poll() is None, log.read_text()
            yield Deployed(f"http://127.0.0.1:{port}", key, root / "history", started)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=120) == 130, log.read_text()
        finally:
            process.kill()
            process.wait()
