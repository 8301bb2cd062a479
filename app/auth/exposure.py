"""Whether a service may be reached: by its certificate, and from beyond this machine only with keys."""

import ssl

from app.auth.keys import KeyStore
from app.database.engine import Database
from app.http.loopback import is_loopback
from app.settings import Settings


class ExposureError(ValueError):
    """The service would be open to everybody on the network, or its files of TLS cannot be used."""


def require_certificate(settings: Settings) -> None:
    """Refuse files of TLS that a server could not use: it would say less, and later.

    Raises:
        ExposureError: they cannot be read, are none, do not belong together, or need a passphrase.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Nobody is there to type a passphrase.
        context.load_cert_chain(settings.tls_certificate, settings.tls_key, lambda: "")
    except OSError as error:
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        raise ExposureError(
            f"FLOWGAUGE_TLS_CERTIFICATE {settings.tls_certificate} and FLOWGAUGE_TLS_KEY {settings.tls_key} "
            "must be PEM files of a certificate (with what lies between it and the authority, if anything) "
            f"and its own private key, without a passphrase: {reason}"
        ) from error


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
        return database.revision is not None and bool(KeyStore(database).list())
    finally:
        database.close()
