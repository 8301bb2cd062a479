"""Shared by the settings of all sinks: their error, and TLS."""

import ssl
from pathlib import Path


class SinkError(ValueError):
    """The settings of a sink are wrong. The message shows no secrets."""


def tls_context(ca: Path | None, setting: str) -> ssl.SSLContext:
    """Make a TLS context that trusts the authorities of a PEM file, or the system's.

    Args:
        ca: the file; None for the system's authorities.
        setting: the setting that names it, for messages.

    Raises:
        SinkError: it is no readable PEM file.
    """
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ValueError) as error:  # ValueError: an impossible path
        raise SinkError(f"{setting} is no readable PEM file: {ca}: {error}") from error
