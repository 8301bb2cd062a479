"""The connection of a command to a Ray cluster, and the check of its nodes."""

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from flows.fastflow.files.atomic_files import temporary_directory
from training.cluster.worker import describe_fault
from training.versions import library_versions

_CHECK_SECONDS: Final = 120
# As the command sets them for itself, see flowgauge.py: glibc keeps freed memory, threads spin briefly.
_ENVIRONMENT: Final = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "GOMP_SPINCOUNT": "2000",
}


class ClusterError(ValueError):
    """The cluster cannot be used for this training; the message says what to do."""


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Connect to a cluster and yield the module `ray`; tasks end with the connection.

    Args:
        address: "auto" for the cluster that this machine is part of, the HOST:PORT of its head, or "local"
            for one that lives as long as the connection.

    Raises:
        ClusterError: Ray is not installed, or there is no such cluster.
    """
    # Before the import, which reads it.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ClusterError("--ray needs the extra ray: pip install 'flowgauge[ray]'") from error
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": False}
    try:
        host, _, port = address.rpartition(":")
        if host and "/" not in address:  # Ray itself would try for four minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, runtime_env={"env_vars": _ENVIRONMENT}, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ClusterError(
            f"this machine is in no Ray cluster at {address} ({reason}): start one with `ray start --head`, "
            "or join one with `ray start --address HOST:PORT`"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def check_nodes(ray: Any, data: Path, shared: Sequence[Path]) -> None:
    """Check that all nodes have the same versions and share the folders.

    Args:
        data: a folder to read.
        shared: folders that are written to.

    Raises:
        ClusterError: a node does not.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as OnNode

    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].keys() & {"CPU", "GPU"}]
    with ExitStack() as stack:
        # A folder with the same name on another disk lacks these.
        marks = [stack.enter_context(temporary_directory(folder)) for folder in shared]
        check = ray.remote(num_cpus=0, max_retries=0)(describe_fault)
        faults = [
            check.options(scheduling_strategy=OnNode(node["NodeID"], soft=False)).remote(
                [data, *marks], library_versions()
            )
            for node in nodes
        ]
        for node, reference in zip(nodes, faults, strict=True):
            try:
                fault = ray.get(reference, timeout=_CHECK_SECONDS)
            except ray.exceptions.RayError as error:
                fault = f"the node {node['NodeManagerHostname']} cannot run FlowGauge: {error}"
            if fault is not None:
                raise ClusterError(fault)
