"""The deployment of the service on Ray Serve."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from app.settings import Settings
from flows.fastflow.ray_connection import ClusterError, connected

NAME: Final = "flowgauge"
# Ray's own queues stay open: the service refuses by itself, with a reason and Retry-After.
_MAX_ONGOING: Final = 4096
_SHUTDOWN_SECONDS: Final = 40  # live streams, which never end, are cut after it
# Ray reads it where it starts the proxies.
PROXY_VARIABLES: Final = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "app.cluster.proxy.middlewares"}


class Replicas(NamedTuple):
    """Least and most replicas."""

    least: int
    most: int

    @classmethod
    def parse(cls, text: str) -> "Replicas":
        """Parse MIN:MAX or a number.

        Raises:
            ClusterError: it is neither.
        """
        least, _, most = text.partition(":")
        try:
            found = cls(int(least), int(most or least))
        except ValueError:
            found = cls(0, 0)
        if not 1 <= found.least <= found.most:
            raise ClusterError(f"--replicas must be MIN:MAX, such as 2:8; got {text!r}")
        return found


def build(settings: Settings, replicas: Replicas, environment: Mapping[str, str]) -> Any:
    """Build the Ray Serve application.

    Args:
        environment: the FLOWGAUGE_* variables of the replicas.
    """
    from ray import serve

    from app.cluster.replica import Replica, build_app

    deployment = serve.deployment(
        name="service",
        max_ongoing_requests=_MAX_ONGOING,
        max_queued_requests=-1,
        autoscaling_config={
            "min_replicas": replicas.least,
            "max_replicas": replicas.most,
            # Half of what a replica lets wait: then requests are about to be refused.
            "target_ongoing_requests": max(1, settings.queue_images // 2),
        },
        graceful_shutdown_timeout_s=_SHUTDOWN_SECONDS,
        ray_actor_options={
            "num_cpus": settings.threads or 1,
            "num_gpus": int(settings.device.startswith("cuda")),
            **({"runtime_env": {"env_vars": dict(environment)}} if environment else {}),
        },
    )
    return deployment(serve.ingress(build_app)(Replica)).bind()


@contextmanager
def deployed(address: str, settings: Settings, replicas: Replicas) -> Iterator[None]:
    """Run the service on a cluster until the end of the context.

    Raises:
        ClusterError: Ray is not installed, there is no such cluster, or no replica starts.
    """
    environment = {name: value for name, value in os.environ.items() if name.startswith("FLOWGAUGE_")}
    options: dict[str, Any] = {"host": settings.host, "port": settings.port}
    if settings.tls_key is not None:
        options |= {"ssl_keyfile": str(settings.tls_key), "ssl_certfile": str(settings.tls_certificate)}
    with connected(address, PROXY_VARIABLES):
        from ray import serve

        serve.start(proxy_location="EveryNode", http_options=options)
        try:
            serve.run(build(settings, replicas, environment), name=NAME, route_prefix="/")
            yield
        except RuntimeError as error:
            raise ClusterError(f"no replica starts: {error}") from error
        finally:
            serve.shutdown()
