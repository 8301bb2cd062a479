"""The server's certificate, loaded once before anything else: a server would say less, and later."""

import ssl

from app.settings import Settings


class CertificateError(ValueError):
    """The files of TLS cannot be used."""


def require_certificate(settings: Settings) -> None:
    """Refuse files of TLS that a server could not use.

    Raises:
        CertificateError: they cannot be read, are none, do not belong together, or need a passphrase.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Nobody is there to type a passphrase.
        context.load_cert_chain(settings.tls_certificate, settings.tls_key, lambda: "")
    except OSError as error:
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        raise CertificateError(
            f"FLOWGAUGE_TLS_CERTIFICATE {settings.tls_certificate} and FLOWGAUGE_TLS_KEY {settings.tls_key} "
            "must be PEM files of a certificate (with what lies between it and the authority, if anything) "
            f"and its own private key, without a passphrase: {reason}"
        ) from error
