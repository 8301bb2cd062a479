"""Where a request comes from, for the log."""

import ipaddress
import re
from typing import Final

from starlette.types import Scope

_LONGEST: Final = 64
_UNFIT: Final = re.compile(r"[^\x21-\x7e]")


def client_address(scope: Scope) -> str:
    """The address of who asks; "unknown" where there is none.

    It is the connection's, or what a proxy of FLOWGAUGE_TRUSTED_PROXIES has told, which the server puts in
    its place. That may be any text, so what does not fit into a line of the log becomes "?".
    """
    host: str = scope["client"][0] if scope.get("client") else "unknown"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        host = str(getattr(address, "ipv4_mapped", None) or address)
    return _UNFIT.sub("?", host[:_LONGEST]) or "unknown"
