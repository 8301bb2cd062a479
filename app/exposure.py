"""Whether a service may be reached from beyond this machine."""

from app.database.engine import Database
from app.keys import Keys
from app.loopback import is_loopback
from app.settings import Settings


class ExposureError(ValueError):
    """The service would be open to everybody on the network."""


def require_keys_on_network(settings: Settings) -> bool:
    """Refuse to be reachable from beyond this machine where no request would need a key.

    Args:
        settings: of the service that is to start.

    Returns:
        Whether there are keys, revoked ones too, so that every request needs one.

    Raises:
        ExposureError: the host is not loopback or there are proxies, there are no keys, and nobody has
            allowed that.
        DatabaseError: the database cannot be used.
    """
    keyed = settings.has_database and _has_keys(settings.database_url)
    if keyed or settings.allow_unauthenticated_network:
        return keyed
    if not is_loopback(settings.host):
        reached, instead = f"host {settings.host!r} is beyond this machine", "listen on 127.0.0.1"
    # Who comes through a proxy on this machine looks like this machine, unless the proxy says more.
    elif proxies := settings.trusted_proxies.strip(" ,"):
        reached, instead = f"FLOWGAUGE_TRUSTED_PROXIES names {proxies}, which pass on requests", "unset it"
    else:
        return False
    raise ExposureError(
        f"{reached} and there are no keys, so everybody on the network could use the service. Make a key "
        "first:\n"
        "  flowgauge keys create --role admin --name NAME\n"
        f"or {instead}, or allow it with FLOWGAUGE_ALLOW_UNAUTHENTICATED_NETWORK=true."
    )


def _has_keys(url: str) -> bool:
    # Only read: whether this server may have the database is not known yet, so it is not changed.
    database = Database(url)
    try:
        return database.revision is not None and bool(Keys(database).list())
    finally:
        database.close()
