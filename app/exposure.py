"""Whether a service may be reached from beyond this machine."""

from pathlib import Path

from app.database.engine import Database, read_url
from app.keys import Keys
from app.settings import Settings, is_loopback


class ExposureError(ValueError):
    """The service would be open to everybody on the network."""


def expect_keys_on_network(settings: Settings) -> None:
    """Refuse to be reachable from beyond this machine where no request would need a key.

    Args:
        settings: of the service that is to start.

    Raises:
        ExposureError: the host is not loopback or there are proxies, there are no keys, and nobody has
            allowed that.
        DatabaseError: the database cannot be used.
    """
    way = _way_in(settings)
    if way is None or settings.allow_unauthenticated_network:
        return
    if _has_keys(settings):
        return
    reached, instead = way
    raise ExposureError(
        f"{reached} and there are no keys, so everybody on the network could use the service. Make a key "
        "first:\n"
        "  flowgauge keys create --role admin --name NAME\n"
        f"or {instead}, or allow it with FLOWGAUGE_ALLOW_UNAUTHENTICATED_NETWORK=true."
    )


def _has_keys(settings: Settings) -> bool:
    # Only read: whether this server may have the database is not known yet, so it is not changed, nor made.
    url = read_url(settings.database_url)
    if url.drivername == "sqlite" and url.database and not Path(url.database).exists():
        return False
    database = Database(settings.database_url)
    try:
        return database.revision is not None and bool(Keys(database).list())
    finally:
        database.close()


def _way_in(settings: Settings) -> tuple[str, str] | None:
    """How the service is reached from beyond this machine, and what would prevent that; None if it is not."""
    if not is_loopback(settings.host):
        return f"host {settings.host!r} is beyond this machine", "listen on 127.0.0.1"
    # Who comes through a proxy on this machine looks like this machine, unless the proxy says more.
    if settings.trusted_proxies.strip(" ,"):
        return (
            f"FLOWGAUGE_TRUSTED_PROXIES names {settings.trusted_proxies}, which pass on what others ask",
            "unset it",
        )
    return None
