"""Checks at start: usable TLS files, and no access from the network without keys."""

import ssl

from app.auth.key_store import KeyStore
from app.database.engine import Database
from app.http.loopback import is_loopback
from app.settings import Settings


class ExposureError(ValueError):
    """The service would be open to the whole network, or its TLS files cannot be used."""


def require_certificate(settings: Settings) -> None:
    """Check the TLS files at start, where the message can say more than the server's.

    Raises:
        ExposureError: a file is missing, unreadable or invalid, needs a passphrase, or the two do not match.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without this, OpenSSL would prompt for a passphrase.
        context.load_cert_chain(settings.tls_certificate, settings.tls_key, lambda: "")
    except OSError as error:
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        raise ExposureError(
            f"FLOWGAUGE_TLS_CERTIFICATE {settings.tls_certificate} and FLOWGAUGE_TLS_KEY {settings.tls_key} "
            "must be PEM files of a certificate (with its intermediate certificates, if any) "
            f"and its own private key, without a passphrase: {reason}"
        ) from error


def require_keys_on_network(settings: Settings) -> bool:
    """Refuse to start if other machines could reach the service without a key.

    Returns:
        True if there are keys, revoked ones included, so that every request needs one.

    Raises:
        ExposureError: there are no keys, the host is not loopback or proxies are trusted, and the settings do
            not allow it.
        DatabaseError: the database cannot be used.
    """
    keyed = settings.has_database and _has_keys(settings.database_url)
    if keyed or settings.allow_unauthenticated_network:
        return keyed
    if not is_loopback(settings.host):
        reached, instead = f"host {settings.host!r} is beyond this machine", "listen on 127.0.0.1"
    # A request through a local proxy comes from a loopback address.
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
    # Read only: another server may own the database.
    database = Database(url)
    try:
        return database.revision is not None and bool(KeyStore(database).list())
    finally:
        database.close()
