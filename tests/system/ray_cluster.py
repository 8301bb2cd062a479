"""A Ray cluster of several nodes on this machine, each with its own processes and folder."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
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
        environment: of the cluster's commands.
        root: of each node's files.
        nodes: processes of `ray start`.
    """

    address: str
    environment: dict[str, str]
    root: Path
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_node(self) -> None:
        """Start another node, or the head."""
        number = len(self.nodes)
        port = self.address.partition(":")[2]
        head = ["--head", f"--port={port}", "--include-dashboard=false"]
        place = [f"--address={self.address}"] if number else head
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
def cluster(nodes: int) -> Iterator[Cluster]:
    """Run a cluster of nodes."""
    # Short, since paths of sockets lie in it.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as root:
        holder, port = reserved_port()
        secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64, "RAY_USAGE_STATS_ENABLED": "0"}
        made = Cluster(f"127.0.0.1:{port}", {**environment(), **secret, "HOME": root}, Path(root))
        try:
            for _ in range(nodes):
                made.start_node()
            yield made
        finally:
            for number in range(len(made.nodes)):
                made.kill_node(number)
            holder.close()
