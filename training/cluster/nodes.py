"""The check of a cluster's nodes before a training."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from flows.fastflow.files.atomic_files import temporary_directory
from flows.fastflow.ray_connection import ClusterError
from training.cluster.worker import describe_fault
from training.versions import library_versions

_CHECK_SECONDS: Final = 120


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
