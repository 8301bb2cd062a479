"""X-Forwarded-For: each proxy adds whom it speaks for at the end, so the end alone can matter."""

from collections.abc import Iterable
from typing import Final

from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

NAME: Final = b"x-forwarded-for"
MOST_PROXIES: Final = 16  # behind one another
_LONGEST: Final = 1024  # bytes; so many addresses have fewer


class TrustedProxies(ProxyHeadersMiddleware):
    """uvicorn's middleware, which believes what trusted proxies tell; of a long header, only the end.

    uvicorn goes through the addresses as long as they are of trusted proxies. For a header full of those,
    everybody else would wait for 40 ms and more.
    """

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer as whoever the trusted proxies say has asked."""
        if scope["type"] == "http" and any(name == NAME for name, _ in scope["headers"]):
            rest = [header for header in scope["headers"] if header[0] != NAME]
            scope["headers"] = [*rest, (NAME, b", ".join(last_addresses(scope["headers"])))]
        await super().__call__(scope, receive, send)


def last_addresses(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """The addresses at the end of X-Forwarded-For, as they are written there; none where it was not sent."""
    told = b",".join(value for name, value in headers if name == NAME)[-_LONGEST:]
    return [address.strip() for address in told.split(b",")[-MOST_PROXIES:]] if told else []
