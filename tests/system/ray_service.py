"""The service on a Ray cluster of this machine, with PostgreSQL and a store."""

import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml

from app.auth.key_store import KeyStore
from app.auth.permissions import COMMAND_LINE
from app.client.sync import Client
from app.cluster.deployment import PROXY_VARIABLES
from app.database.engine import Database
from app.schemas.access import Role
from tests.support.ports import reserved_port
from tests.support.server import Server
from tests.support.waiting import eventually
from tests.system.processes import COMMAND
from tests.system.ray_cluster import RAY, Cluster, cluster

CONFIG = Path(__file__).parents[2] / "deploy" / "ray" / "serve.yaml"


@dataclass(frozen=True)
class Deployed:
    """The service on a cluster.

    Attributes:
        root: folder of all its files.
        settings: its FLOWGAUGE_* variables.
        key: of an administrator.
    """

    root: Path
    port: int
    settings: Mapping[str, str]
    key: str
    database: Database
    cluster: Cluster

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def history(self) -> Path:
        return Path(self.settings["FLOWGAUGE_HISTORY"])

    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"X-API-Key": self.key}, timeout=60)

    def client(self) -> Client:
        """Make the project's client."""
        return Client(self.url, self.key, timeout=20, patience=240)

    def journals(self) -> list[Path]:
        return list(self.history.glob("replica-*/history/journal"))

    def replicas(self) -> list[int]:
        """Process numbers of the replicas."""
        return self.cluster.processes("ServeReplica:flowgauge:service")

    @property
    def _dashboard(self) -> str:
        return f"http://127.0.0.1:{self.cluster.dashboard}"

    def is_running(self) -> bool:
        """Tell if all replicas that the config wants serve, by the dashboard."""
        token = self.cluster.environment["RAY_AUTH_TOKEN"]
        answer = httpx.get(
            f"{self._dashboard}/api/serve/applications/",
            headers={"Authorization": f"Bearer {token}"},
            timeout=60,
        )
        applications = answer.raise_for_status().json()["applications"]
        return bool(applications) and applications["flowgauge"]["status"] == "RUNNING"

    def start_command(self, replicas: int) -> subprocess.Popen[bytes]:
        """Start `flowgauge cluster serve` and wait until it serves."""
        log = self.root / "log.txt"
        command = [
            *COMMAND,
            "cluster",
            "serve",
            f"--address={self.cluster.address}",
            f"--replicas={replicas}",
        ]
        with log.open("w") as file:
            process = subprocess.Popen(
                command,
                env={**self.cluster.environment, **self.settings},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        eventually(lambda: process.poll() is not None or "Ctrl-C stops it" in log.read_text())
        assert process.poll() is None, log.read_text()
        return process

    def deploy_config(self, least: int, most: int, **variables: str) -> None:
        """Deploy the file of deploy/ with `serve deploy`; other variables replace all replicas."""
        config = yaml.safe_load(CONFIG.read_text())
        config["http_options"] |= {"host": "127.0.0.1", "port": self.port}
        [service] = config["applications"][0]["deployments"]
        service["autoscaling_config"] |= {"min_replicas": least, "max_replicas": most}
        if variables:
            service["ray_actor_options"]["runtime_env"] = {"env_vars": variables}
        file = self.root / "serve.yaml"
        file.write_text(yaml.safe_dump(config))
        subprocess.run(
            [RAY.with_name("serve"), "deploy", file, "--address", self._dashboard],
            env=self.cluster.environment,
            check=True,
            capture_output=True,
        )


@contextmanager
def prepared(
    nodes: int, root: Path, database_url: str, models: Path, *, dashboard: bool = False
) -> Iterator[Deployed]:
    """Start a cluster for the service; the models folder becomes a copy of the shared one.

    Args:
        dashboard: start one, and nodes with the settings of the service, as `serve deploy` needs them.
    """
    shared = {"database": database_url, "store": f"file://{root}/shared"}
    (root / "shared").mkdir()
    with Server(models, root / "first", **shared):
        pass  # it moves its models into the store
    (held, port), (held_too, dashboard_port) = reserved_port(), reserved_port()
    settings = {**shared, "history": str(root / "history"), "port": str(port), "threads": "1"}
    variables = {f"FLOWGAUGE_{name.upper()}": value for name, value in settings.items()}
    of_nodes = variables | PROXY_VARIABLES if dashboard else {}
    with (
        held,
        held_too,
        closing(Database(database_url)) as database,
        cluster(nodes, of_nodes, dashboard_port if dashboard else None) as started,
    ):
        _, key = KeyStore(database).create(COMMAND_LINE, Role.ADMIN, "the first")
        yield Deployed(root, port, variables, key, database, started)


@contextmanager
def deployed_on(nodes: int, root: Path, database_url: str, models: Path) -> Iterator[Deployed]:
    """Run `flowgauge cluster serve` with a replica on each node."""
    with prepared(nodes, root, database_url, models) as service:
        process = service.start_command(nodes)
        try:
            yield service
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=120) == 130, (root / "log.txt").read_text()
        finally:
            process.kill()
            process.wait()
