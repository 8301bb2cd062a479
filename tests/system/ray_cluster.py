"""A Ray cluster of several nodes on this machine, each with its own processes and folder."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.ports import reserved_port
from tests.system.processes import environment

RAY = Path(sys.executable).with_name("ray")


@dataclass(frozen=True)
class Cluster:
    """The address of the head, and the environment of the cluster's commands."""

    address: str
    environment: dict[str, str]

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
    """Run a cluster of nodes with a processor each."""
    with ExitStack() as stack:
        # Short, since paths of sockets lie in it.
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ray", dir="/tmp")))
        holder, port = reserved_port()
        stack.enter_context(holder)
        address = f"127.0.0.1:{port}"
        secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64, "RAY_USAGE_STATS_ENABLED": "0"}
        env = {**environment(), **secret, "HOME": str(root)}
        for node in range(nodes):
            place = ["--head", f"--port={port}", "--include-dashboard=false"]
            place = [f"--address={address}"] if node else place
            log = root / f"node{node}.log"
            own = [f"--temp-dir={root / str(node)}", "--node-ip-address=127.0.0.1", "--num-cpus=1", "--block"]
            process = subprocess.Popen(
                [RAY, "start", *place, *own],
                env=env,
                stdout=stack.enter_context(log.open("w")),
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            stack.callback(_end, process)
            while "Ray runtime started" not in log.read_text():
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
        yield Cluster(address, env)


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):  # a node may have failed
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
