"""Detection of loopback hosts."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Return True if a host name or address is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
