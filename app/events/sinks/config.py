"""What the settings of all sinks share."""

import ssl
from pathlib import Path


class SinkError(ValueError):
    """A sink cannot be used as it was asked for; the message says why and what to do, without secrets."""


def tls_context(ca: Path | None, setting: str) -> ssl.SSLContext:
    """TLS that trusts the authority of a PEM file, or those that the system trusts.

    Args:
        ca: the file; None for the system's.
        setting: what names it, for people.

    Raises:
        SinkError: it is no readable PEM file.
    """
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ValueError) as error:  # ValueError: what cannot be a path
        raise SinkError(f"{setting} is no readable PEM file: {ca}: {error}") from error
