"""Which addresses a webhook may connect to: public ones, and those that are listed.

A name is resolved here, every address of it is looked at, and then that address is connected to: a name that
leads elsewhere a moment later leads nowhere.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpcore

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class AddressRefused(httpcore.ConnectError):
    """A name leads to an address that is not to be connected to."""


class Addresses(httpcore.AsyncNetworkBackend):
    """Connections of httpcore to allowed addresses alone.

    Args:
        networks: that are allowed though they are private.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = tuple(networks)
        self._connect = httpcore.AnyIOBackend()
        # Of its own: a lookup that hangs cannot be ended, and asyncio's threads serve inspections too.
        self._lookups = ThreadPoolExecutor(1, "lookup")

    def close(self) -> None:
        """Look up no more names."""
        self._lookups.shutdown(wait=False, cancel_futures=True)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of a host that answers.

        Raises:
            AddressRefused: one of its addresses is not allowed.
            ConnectError: none can be reached, or the name is not known.
            ConnectTimeout: that took too long.
        """
        now = asyncio.get_running_loop().time
        end = None if timeout is None else now() + timeout
        error: httpcore.NetworkError | httpcore.TimeoutException | None = None
        addresses = await self._resolve(host, port, timeout)
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            # All of them in the one time: a name of many addresses must not take longer to give up.
            share = None if end is None else max(0.0, end - now()) / left
            try:
                return await self._connect.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as failure:
                error = failure
        raise error or httpcore.ConnectError(f"{host} has no address")

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Refuse."""
        del timeout, socket_options
        raise AddressRefused(f"{path} is no address of a network")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    async def _resolve(self, host: str, port: int, seconds: float | None) -> list[str]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                lookup = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
                found = await loop.run_in_executor(self._lookups, lookup)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"the name {host} is not resolved in time") from error
        except (OSError, UnicodeError) as error:  # a label that is empty or too long
            raise httpcore.ConnectError(f"the name {host} is not known here") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            if not is_allowed(address, self._networks):
                raise AddressRefused(
                    f"{host} leads to {address}, which is not public; list it under `networks` if it is meant"
                )
        return addresses


def is_allowed(address: str, networks: Iterable[Network]) -> bool:
    """Whether an address is public, or in one of some networks."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    if any(parsed.version == network.version and parsed in network for network in networks):
        return True
    # Of IPv6, addresses that carry an IPv4 address lead wherever a gateway thinks.
    carried = isinstance(parsed, ipaddress.IPv6Address) and (
        parsed.is_site_local
        or parsed.sixtofour is not None
        or parsed.teredo is not None
        or any(parsed in network for network in _CARRIERS)
    )
    return parsed.is_global and not parsed.is_multicast and not carried


# Translated by RFC 6052, locally by RFC 8215, by RFC 2765; and compatible ones, RFC 4291, 2.5.5.1.
_CARRIERS = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0:0/96", "::/96")))
