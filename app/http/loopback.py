"""Which hosts are this very machine."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether a host, a name or an address, is this very machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
