"""Where a server is, and how its clients come to it."""

import ssl
from dataclasses import dataclass
from os import PathLike
from typing import Any, Final

import httpx

from ..loopback import is_loopback

_CONNECT_SECONDS: Final = 5.0
# A stream of events is silent between the server's heartbeats, one in 15 seconds.
_LEAST_STREAM_SECONDS: Final = 30.0


class AddressError(ValueError):
    """The URL, the key or the authority's file cannot be right, whatever the server says.

    Attributes:
        what: which of them: url, key or ca.
    """

    def __init__(self, what: str, message: str) -> None:
        super().__init__(message)
        self.what = what


@dataclass(frozen=True)
class Connection:
    """How to reach a server.

    Attributes:
        url: of the server, without a slash at its end.
        arguments: for httpx.Client and httpx.AsyncClient alike.
        stream_timeout: for the stream of events, in the place of the one among the arguments.
    """

    url: str
    arguments: dict[str, Any]
    stream_timeout: httpx.Timeout


def connection(url: str, key: str | None, ca: str | PathLike[str] | None, timeout: float) -> Connection:
    """Check and put together how to reach a server.

    Args:
        url: as http://127.0.0.1:8000.
        key: of the server, or None where it has none.
        ca: PEM file of the authority that signed the server's certificate; None for those of the system.
        timeout: seconds that the network may be silent.

    Raises:
        AddressError: one of them cannot be right.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise AddressError("url", f"{url!r}: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise AddressError("url", f"{url!r} is no address of a server, as http://127.0.0.1:8000 is")
    key = key.strip() if key else ""
    if not key.isascii() or not (key.isprintable() or not key):
        raise AddressError("key", "that is no key: keys begin with fg_")
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise AddressError("ca", f"{ca} is no readable PEM file: {error}") from error
    connect = min(timeout, _CONNECT_SECONDS)
    return Connection(
        url.rstrip("/"),
        {
            "base_url": url.rstrip("/"),
            "headers": {"X-API-Key": key} if key else {},
            "timeout": httpx.Timeout(timeout, connect=connect),
            "verify": context,
            # A proxy that the environment names for the world outside does not know this machine's addresses.
            "trust_env": not is_loopback(parsed.host),
        },
        httpx.Timeout(timeout, connect=connect, read=max(timeout, _LEAST_STREAM_SECONDS)),
    )
