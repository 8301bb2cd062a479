"""The connection of a command to a Ray cluster."""

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

# As the command sets them for itself, see flowgauge.py: glibc keeps freed memory, threads spin briefly.
_ENVIRONMENT: Final = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "GOMP_SPINCOUNT": "2000",
}


class ClusterError(ValueError):
    """The cluster cannot be used for this; the message says what to do."""


@contextmanager
def connected(address: str, environment: Mapping[str, str] | None = None) -> Iterator[Any]:
    """Connect to a cluster and yield the module `ray`; tasks end with the connection.

    Args:
        address: "auto" for the cluster that this machine is part of, the HOST:PORT of its head, or "local"
            for one that lives as long as the connection.
        environment: further variables of its processes.

    Raises:
        ClusterError: Ray is not installed, or there is no such cluster.
    """
    # Before the import, which reads it.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ClusterError("this needs the extra ray: pip install 'flowgauge[ray]'") from error
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": False}
    try:
        host, _, port = address.rpartition(":")
        if host and "/" not in address:  # Ray itself would try for four minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, runtime_env={"env_vars": {**_ENVIRONMENT, **(environment or {})}}, **quiet)
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
