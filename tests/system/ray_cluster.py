"""A Ray cluster of several nodes on this machine, each with its own processes and folder."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.ports import reserved_port
from tests.system.processes import environment

RAY = Path(sys.executable).with_name("ray")


@dataclass(frozen=True)
class Cluster:
    """Nodes with a processor each; the first is the head.

    Attributes:
        address: of the head.
        dashboard: its port on the head; None for no dashboard.
        environment: of the cluster's commands.
        root: of each node's files.
        nodes: processes of `ray start`.
    """

    address: str
    dashboard: int | None
    environment: dict[str, str]
    root: Path
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_node(self, *, head: bool = False) -> None:
        """Start another node, or the head, which is the first one or takes its place."""
        number = len(self.nodes)
        port = self.address.partition(":")[2]
        shown = (
            ["--include-dashboard=false"]
            if self.dashboard is None
            else [f"--dashboard-port={self.dashboard}"]
        )
        place = ["--head", f"--port={port}", *shown] if head else [f"--address={self.address}"]
        own = [f"--temp-dir={self.root / str(number)}", "--node-ip-address=127.0.0.1", "--num-cpus=1"]
        log = self.root / f"node{number}.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                [RAY, "start", *place, *own, "--block"],
                env=self.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.nodes.append(process)
        while "Ray runtime started" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)

    def kill_node(self, number: int) -> None:
        """Kill all processes of a node."""
        with suppress(ProcessLookupError):  # it may have failed
            os.killpg(self.nodes[number].pid, signal.SIGKILL)
        self.nodes[number].wait()

    def processes(self, name: str) -> list[int]:
        """Process numbers of the workers that run a task or an actor of this name."""
        # Ray adds the method that an actor runs.
        title = re.compile(rf"ray::{re.escape(name)}(\.|\0)".encode())
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended
                if title.match((folder / "cmdline").read_bytes()):
                    found.append(int(folder.name))
        return found


@contextmanager
def cluster(
    nodes: int, variables: Mapping[str, str] | None = None, dashboard: int | None = None
) -> Iterator[Cluster]:
    """Run a cluster of nodes.

    Args:
        variables: further ones of its environment.
        dashboard: port of the dashboard, which `serve deploy` needs.
    """
    # Short, since paths of sockets lie in it.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as root:
        holder, port = reserved_port()
        secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64, "RAY_USAGE_STATS_ENABLED": "0"}
        own = {**environment(), **secret, **(variables or {}), "HOME": root}
        made = Cluster(f"127.0.0.1:{port}", dashboard, own, Path(root))
        try:
            for number in range(nodes):
                made.start_node(head=number == 0)
            yield made
        finally:
            for number in range(len(made.nodes)):
                made.kill_node(number)
            holder.close()
