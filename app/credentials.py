"""What a request shows to say who it comes from: a key in a header, or a session in a cookie."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from app.access import KEY_HEADER
from app.problems import Problem
from app.sessions import COOKIE


@dataclass(frozen=True)
class Credential:
    """What came: the text of a key, or the secret of a session."""

    kind: Literal["key", "session"]
    secret: str


def find(headers: Iterable[tuple[bytes, bytes]]) -> Credential | None:
    """Find what a request shows; a key goes before a cookie, which a browser sends unasked.

    Two of one kind are refused, not chosen from: a proxy in front may have looked at the other one. A key in
    the address is never looked for, as addresses are kept in logs and histories.

    Args:
        headers: names in lower case, and values.

    Returns:
        The key or the session; None where there is neither.

    Raises:
        Problem: unauthenticated.
    """
    keys: list[str] = []
    cookies: list[str] = []
    for name, value in headers:
        if name == b"x-api-key":
            keys.append(value.decode("latin-1").strip())
        elif name == b"authorization":
            scheme, _, token = value.decode("latin-1").strip().partition(" ")
            # Other schemes are for others, such as a proxy that asks for a password.
            if scheme.lower() == "bearer":
                keys.append(token.strip())
        elif name == b"cookie":
            pairs = (pair.partition("=") for pair in value.decode("latin-1").split(";"))
            cookies += [secret.strip() for cookie, _, secret in pairs if cookie.strip() == COOKIE]
    if len(keys) > 1:
        raise Problem(
            "unauthenticated",
            f"{len(keys)} keys came; send one, as {KEY_HEADER} or as Authorization: Bearer.",
        )
    if keys:
        return Credential("key", keys[0])
    if len(cookies) > 1:
        raise Problem("unauthenticated", f"{len(cookies)} cookies named {COOKIE} came; send one.")
    return Credential("session", cookies[0]) if cookies else None
