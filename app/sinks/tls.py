"""TLS to a broker or a receiver whose authority may be the plant's own."""

import ssl
from pathlib import Path

from app.sinks.errors import SinkError


def trusting(ca: Path | None, setting: str) -> ssl.SSLContext:
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
