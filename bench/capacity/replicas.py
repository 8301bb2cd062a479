"""What do Ray's proxy and a second replica bring and cost? One server, one replica, two replicas in one run.

    python -m bench.capacity.replicas

All have the same models, PostgreSQL database and store, which is a folder of this machine, and one
computing thread a process. They take turns, and the figures are medians over the turns. Needs the extra ray.
The machine should have nothing else to do.
"""

import argparse
import asyncio
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from app.auth.key_store import KeyStore
from app.auth.permissions import COMMAND_LINE
from app.database.engine import Database
from app.schemas.access import Role
from bench.report import RESULTS, Report, Table
from bench.service.load import closed_loop, per_second
from tests.support import fleet
from tests.support.ports import reserved_port
from tests.support.postgres import Postgres, binaries
from tests.support.server import Server
from tests.support.waiting import eventually
from tests.system.ray_cluster import cluster

_CLIENTS = (1, 8)
_WARM_UP_SECONDS = 5.0


def main() -> None:
    """Measure each service in turns, and write the report."""
    parser = argparse.ArgumentParser(prog="python -m bench.capacity.replicas", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / "replicas")
    parser.add_argument("--folder", type=Path, default=RESULTS / "fleet", help="of the trained models")
    parser.add_argument("--size", type=int, default=256, help="side of the models' input in pixels")
    parser.add_argument("--seconds", type=float, default=15, help="of each load")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    trained = fleet.make(options.folder / str(options.size), size=options.size, categories=4, versions=1)
    if (programs := binaries()) is None:
        sys.exit("PostgreSQL is not installed; on Debian: apt-get install postgresql")
    measured: dict[str, list[list[float]]] = {}
    with Postgres(programs) as postgres, postgres.database() as url, tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "shared").mkdir()
        os.environ.setdefault("FLOWGAUGE_ENGINE_CACHE", str(root / "engines"))
        shared = {"database": url, "store": f"file://{root}/shared", "threads": "1"}
        database = Database(url)
        database.upgrade()
        _, key = KeyStore(database).create(COMMAND_LINE, Role.ADMIN, "bench")
        database.close()
        models = shutil.copytree(trained.models, root / "models")
        for turn in range(options.turns):
            with Server(models, root / f"server-{turn}", **shared) as server:
                found = _measure(server.port, key, trained, options.seconds)
            measured.setdefault("flowgauge serve", []).append(found)
            for replicas in (1, 2):
                name = f"flowgauge cluster serve, {replicas}"
                with _deployed(replicas, root / f"cluster-{replicas}-{turn}", shared) as port:
                    found = _measure(port, key, trained, options.seconds)
                measured.setdefault(name, []).append(found)
    rows = [
        [name, *(f"{statistics.median(values):.1f}" for values in zip(*turns, strict=True))]
        for name, turns in measured.items()
    ]
    head = ["service", *(f"{n} clients: {what}" for n in _CLIENTS for what in ("median ms", "images/s"))]
    table = Table("One computing thread a process", head, rows)
    settings = {"input size": options.size, "turns": options.turns}
    sys.exit(Report("replicas", settings, [table], figures=measured).write(options.out))


def _measure(port: int, key: str, trained: fleet.Fleet, seconds: float) -> list[float]:
    """Return median milliseconds and images a second for each number of clients."""
    send = partial(closed_loop, port, trained, key=key)
    asyncio.run(send(clients=max(_CLIENTS), seconds=_WARM_UP_SECONDS))
    found = list[float]()
    for clients in _CLIENTS:
        exchanges = asyncio.run(send(clients=clients, seconds=seconds))
        if failed := [one.status for one in exchanges if one.status != 200]:
            raise ValueError(f"requests failed: {failed}")
        found += [1000 * statistics.median(one.seconds for one in exchanges), per_second(exchanges)]
    return found


@contextmanager
def _deployed(replicas: int, folder: Path, shared: Mapping[str, str]) -> Iterator[int]:
    """Deploy the service on a cluster with a node for each replica; yield its port."""
    with ExitStack() as stack:
        nodes = stack.enter_context(cluster(replicas))
        holder, port = reserved_port()
        stack.enter_context(holder)
        settings = {**shared, "history": str(folder), "port": str(port)}
        environment = nodes.environment | {f"FLOWGAUGE_{name.upper()}": v for name, v in settings.items()}
        command = [sys.executable, "-m", "flowgauge", "cluster", "serve", "--address", nodes.address]
        log = folder.with_suffix(".log")
        file = stack.enter_context(log.open("w"))
        process = subprocess.Popen(
            [*command, f"--replicas={replicas}"], env=environment, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            eventually(lambda: process.poll() is not None or "Ctrl-C stops it" in log.read_text())
            if process.poll() is not None:
                raise ValueError(log.read_text())
            yield port
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


if __name__ == "__main__":
    main()
