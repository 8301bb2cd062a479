"""Headers that tell a browser what an answer may do, on every answer."""

from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_NOTHING: Final = "default-src 'none'; frame-ancestors 'none'"
# What FastAPI's page for Swagger UI loads, and no more.
_DOCS: Final = (
    "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; connect-src 'self'; "
    "script-src https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/ 'unsafe-inline'; "
    "style-src https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/ 'unsafe-inline'; "
    "img-src https://fastapi.tiangolo.com data:"
)
_DEFAULTS: Final = {
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: with it a browser says "Origin: null" even to the page's own host.
    "Referrer-Policy": "same-origin",
    # Without keys, no other site may show pictures of this one.
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_YEAR: Final = 365 * 24 * 60 * 60


class SecurityHeaders:
    """ASGI middleware, the outermost. What a route has set for itself stays."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                policy = _DOCS if scope["path"] == "/docs" else _NOTHING
                headers.setdefault("Content-Security-Policy", policy)
                for name, value in _DEFAULTS.items():
                    headers.setdefault(name, value)
                if scope["scheme"] == "https":
                    headers.setdefault("Strict-Transport-Security", f"max-age={_YEAR}")
            await send(message)

        await self.app(scope, receive, send_with_headers)
