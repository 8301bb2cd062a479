"""Requirements for replicas, however they are deployed."""

from app.auth.exposure import require_certificate, require_keys_on_network
from app.settings import Settings
from flows.fastflow.ray_connection import ClusterError


def require_shareable(settings: Settings) -> None:
    """Refuse what would not hold for replicas.

    Raises:
        ClusterError: there is no store, or there are no keys.
        ExposureError: the TLS files cannot be used.
    """
    if settings.store is None:
        raise ClusterError("replicas share one history: set FLOWGAUGE_DATABASE and FLOWGAUGE_STORE")
    require_certificate(settings)
    closed = settings.model_copy(update={"allow_unauthenticated_network": False})
    if not require_keys_on_network(closed):
        raise ClusterError("a cluster needs keys: flowgauge keys create --role admin --name NAME")
