"""Whether a service may be reached from beyond this machine."""

from app.database.engine import Database
from app.keys import Keys
from app.settings import Settings, is_loopback


class ExposureError(ValueError):
    """The service would be open to everybody on the network."""


def expect_keys_on_network(settings: Settings) -> None:
    """Refuse to listen beyond this machine where no request would need a key.

    Args:
        settings: of the service that is to start.

    Raises:
        ExposureError: the host is not loopback, there are no keys, and nobody has allowed that.
        DatabaseError: the database cannot be used.
    """
    if is_loopback(settings.host) or settings.allow_unauthenticated_network:
        return
    database = Database(settings.database_url)
    try:
        # Only read: whether this server may have the database is not known yet, so it is not changed.
        if database.revision is not None and Keys(database).list():
            return
    finally:
        database.close()
    raise ExposureError(
        f"host {settings.host!r} is beyond this machine and there are no keys, so everybody on the network "
        "could use the service. Make a key first:\n"
        "  flowgauge keys create --role admin --name NAME\n"
        "or listen on 127.0.0.1, or allow it with FLOWGAUGE_ALLOW_UNAUTHENTICATED_NETWORK=true."
    )
