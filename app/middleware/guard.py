"""Who may come in: every request passes here before any route sees it."""

import hmac
import logging
import math
import re
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.auth.access import ANONYMOUS, KEY_HEADER, Caller
from app.auth.keyring import Keyring
from app.auth.keys import ApiKey
from app.auth.sessions import COOKIE, CSRF_HEADER, csrf_token
from app.errors import problem_responses
from app.errors.problems import Problem
from app.http import uploads
from app.http.loopback import is_loopback
from app.middleware import login_redirect
from app.middleware.client_address import client_address
from app.middleware.rate_limits import TokenBuckets
from app.settings import Settings

logger = logging.getLogger("flowgauge.guard")

LOGIN: Final = "/login"
# Nothing here tells or changes anything. /login looks at the key in its body by itself.
_HEALTH: Final = ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready")
OPEN: Final = frozenset({*_HEALTH, "/docs", "/openapi.json", LOGIN})
# These read their body by themselves, under limits of their own.
UPLOADS: Final = re.compile(
    r"POST (/v1/models/[^/]+/(predict|predict:batch|versions/[^/]+/predict|versions|calibrations)"
    r"|/v2/models/[^/]+(/versions/[^/]+)?/infer)",
    re.DOTALL,
)
# What proxies say of whom they ask for. A service without keys asks for nothing more: it refuses them all.
FORWARDED: Final = ("x-forwarded-for", "x-real-ip", "forwarded", "via")
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """ASGI middleware: says who a request comes from, or answers 401, 403, 408, 413 or 429 itself.

    What it lets through has `request.state.caller`, and `request.state.session`, the secret of the session
    that it came with or None. Routes say which permission they need (app/auth/access.py).

    A request with a key proves that its sender knows the key. A session, or a service without keys, takes
    whatever a browser sends, and a browser sends what any page on the internet asks it to. So those requests
    must come from our own pages: Origin, if there is one, names the host that was asked; a write with a
    session carries its CSRF token; and a service without keys on this machine alone answers to the names of
    this machine alone, or a page could reach it by a name of its own (DNS rebinding).

    Args:
        app: what is guarded; its state has the keyring.
        settings: of the service.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._settings = settings
        self._requests = TokenBuckets()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope)
            try:
                self._admit(request)
                if not UPLOADS.fullmatch(f"{scope['method']} {scope['path']}"):
                    receive = await uploads.buffer_body(scope, receive, self._settings)
            except Problem as problem:
                answer = login_redirect.to_login(scope, LOGIN) if problem.name == "unauthenticated" else None
                answer = answer or problem_responses.problem_response(request, problem)
                await answer(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _admit(self, request: Request) -> None:
        headers, path = request.headers, request.scope["path"]
        if "upgrade" in headers and "content-length" in headers:
            # uvicorn takes the body for the other protocol's, and would hand on an empty one.
            raise Problem(
                "invalid-request",
                f"A request with a body cannot become {headers['upgrade'][:64]!r}: send it by HTTP/1.1 "
                "alone, as Java's HttpClient does with version(HTTP_1_1).",
            )
        # Style sheets and scripts, which the login page needs too, tell nothing either.
        if path not in OPEN and not path.startswith(login_redirect.STATIC):
            request.state.caller, request.state.session = self._identify(request)
        elif path == LOGIN and request.method not in SAFE_METHODS:
            # Otherwise a page could log a browser in with a key of its own, and see what is done with it.
            _require_same_origin(headers)

    def _identify(self, request: Request) -> tuple[Caller, str | None]:
        """Find who a request comes from, and the secret of its session."""
        try:
            key, session = _find_key(request)
        except Problem as problem:
            logger.warning("refused a request from %s: %s", client_address(request.scope), problem.detail)
            raise
        if key is None:
            self._require_this_machine(request)
        if key is None or session is not None:
            _require_same_origin(request.headers)
        if session is not None and request.method not in SAFE_METHODS:
            _require_csrf_token(request.headers, session)
        return (ANONYMOUS if key is None else self._welcome(key)), session

    def _welcome(self, key: ApiKey) -> Caller:
        """Count a request of a key against its limit."""
        limit = key.requests_per_minute or self._settings.requests_per_minute
        if limit is not None and (wait := self._requests.take(key.id, limit)) > 0:
            seconds = math.ceil(wait)
            raise Problem(
                "rate-limited",
                f"The key's limit of {limit} requests a minute is reached; try again in {seconds} s.",
                seconds,
            )
        return key.caller

    def _require_this_machine(self, request: Request) -> None:
        """Without keys, a request to an address of this machine comes from it, and calls it by its name."""
        server = request.scope.get("server")
        if self._settings.allow_unauthenticated_network or (server and not is_loopback(server[0])):
            return
        host = request.headers.get("host", "")
        name = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(:[0-9]{1,5})?", host)
        if name is None or not is_loopback(name[1].strip("[]").lower()):
            raise Problem(
                "forbidden",
                f"There are no keys, so the Host must be this machine, as 127.0.0.1; it was {host[:64]!r}.",
            )
        # Told by a proxy on this machine, whether or not FLOWGAUGE_TRUSTED_PROXIES has it.
        forwarded = any(name in request.headers for name in FORWARDED)
        if forwarded or (request.client and not is_loopback(request.client.host)):
            raise Problem("forbidden", "There are no keys, so nobody but this machine may use the service.")


def is_still_allowed(scope: Scope) -> bool:
    """Whether a request that was let through would be again, now: its key may have been revoked."""
    try:
        _find_key(Request(scope))
    except Problem:
        return False
    return True


def _find_key(request: Request) -> tuple[ApiKey | None, str | None]:
    """Find the key that a request came with, and the secret of its session; None where there are no keys.

    A key goes before a cookie, which a browser sends unasked. A key in the address is never looked for, as
    addresses are kept in logs and histories.

    Raises:
        Problem: unauthenticated.
    """
    keyring: Keyring = request.app.state.keyring
    key = request.headers.get(KEY_HEADER)
    if key is None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        # Other schemes are for others, such as a proxy that asks for a password.
        key = token if scheme.lower() == "bearer" else None
    if key is not None:
        return keyring.require_key(key.strip()), None
    if not keyring.required:
        return None, None
    secret = request.cookies.get(COOKIE)
    if secret is None:
        how = f"Send a key as {KEY_HEADER} or as Authorization: Bearer, or log in at {LOGIN}."
        raise Problem("unauthenticated", how)
    return keyring.require_session(secret), secret


def _require_same_origin(headers: Headers) -> None:
    """Origin, where it is sent, must name the host that was asked.

    Hosts are compared without the scheme: behind a proxy that ends TLS they differ.
    """
    host = headers.get("host", "").lower()
    for origin in headers.getlist("origin"):
        _, separator, theirs = origin.lower().partition("://")
        if not separator or theirs != host:
            raise Problem("forbidden", f"Pages of {origin[:64]!r} may not use this service.")


def _require_csrf_token(headers: Headers, session: str) -> None:
    token = headers.get(CSRF_HEADER, "").encode()
    if not hmac.compare_digest(token, csrf_token(session).encode()):
        raise Problem(
            "forbidden",
            f"A write with a session must carry {CSRF_HEADER}; POST {LOGIN} and GET /v1/session give it.",
        )
