"""Connection arguments of the clients, validated."""

import ssl
from os import PathLike
from typing import Any, Final

import httpx

from ..http.loopback import is_loopback

CONNECT_SECONDS: Final = 5.0


class AddressError(ValueError):
    """The URL, the key or the authority's file is invalid.

    Attributes:
        what: the invalid one: url, key or ca.
    """

    def __init__(self, what: str, message: str) -> None:
        super().__init__(message)
        self.what = what


def http_arguments(
    url: str, key: str | None, ca: str | PathLike[str] | None, timeout: float
) -> dict[str, Any]:
    """Return the arguments of httpx.Client and AsyncClient; `base_url` ends without a slash.

    Args:
        url: of the server, as http://127.0.0.1:8000.
        key: of the server; None if it has no keys.
        ca: PEM file of the authority that signed the server's certificate; None for the system's.
        timeout: seconds that the network may be silent.

    Raises:
        AddressError: one of them is invalid.
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
        # A proxy from the environment does not know this machine's own addresses.
        "trust_env": not is_loopback(parsed.host),
    }
