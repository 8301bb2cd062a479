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

    def no_passphrase() -> str:
        raise CertificateError(
            "FLOWGAUGE_TLS_KEY is protected by a passphrase: take it off, for nobody is there to type it"
        )

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key, no_passphrase)
    except ssl.SSLError as error:
        raise CertificateError(
            "FLOWGAUGE_TLS_CERTIFICATE and FLOWGAUGE_TLS_KEY must be PEM files of a certificate (with what "
            f"lies between it and the authority, if anything) and its own private key: {error.reason}"
        ) from error
    except OSError as error:
        raise CertificateError(
            f"FLOWGAUGE_TLS_CERTIFICATE or FLOWGAUGE_TLS_KEY cannot be read: {error.strerror}; they are "
            f"{settings.tls_certificate} and {settings.tls_key}"
        ) from error
