"""Where a request comes from, for the log."""

import re
from typing import Final

from starlette.types import Scope

_LONGEST: Final = 64
_UNFIT: Final = re.compile(r"[^\x21-\x7e]")


def client_address(scope: Scope) -> str:
    """The address of who asks; "unknown" where there is none.

    A proxy of FLOWGAUGE_TRUSTED_PROXIES may have told any text in its place, so what does not fit into a line
    of the log becomes "?".
    """
    host: str = scope["client"][0] if scope.get("client") else ""
    return _UNFIT.sub("?", host[:_LONGEST]) or "unknown"
