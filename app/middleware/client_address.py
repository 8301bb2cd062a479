"""The client's address for the log."""

import re
from typing import Final

from starlette.types import Scope

_MAX_LENGTH: Final = 64
_UNSAFE: Final = re.compile(r"[^\x21-\x7e]")


def client_address(scope: Scope) -> str:
    """Return the client's address, or "unknown".

    A trusted proxy may forward any text as an address, so characters that do not fit a log line become "?".
    """
    host: str = scope["client"][0] if scope.get("client") else ""
    return _UNSAFE.sub("?", host[:_MAX_LENGTH]) or "unknown"
