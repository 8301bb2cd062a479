"""How clients come to a server."""

import ssl
from os import PathLike
from typing import Any, Final

import httpx

from ..http.loopback import is_loopback

CONNECT_SECONDS: Final = 5.0


class AddressError(ValueError):
    """The URL, the key or the authority's file cannot be right, whatever the server says.

    Attributes:
        what: which of them: url, key or ca.
    """

    def __init__(self, what: str, message: str) -> None:
        super().__init__(message)
        self.what = what


def http_arguments(
    url: str, key: str | None, ca: str | PathLike[str] | None, timeout: float
) -> dict[str, Any]:
    """Make the arguments of httpx.Client and httpx.AsyncClient; `base_url` has no slash at its end.

    Args:
        url: of the server, as http://127.0.0.1:8000.
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
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise AddressError("key", "that is no key: keys begin with fg_")
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise AddressError("ca", f"{ca} is no readable PEM file: {error}") from error
    return {
        "base_url": url.rstrip("/"),
        "headers": {"X-API-Key": key} if key else {},
        "timeout": httpx.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS)),
        "verify": context,
        # A proxy that the environment names for the world outside does not know this machine's addresses.
        "trust_env": not is_loopback(parsed.host),
    }
