"""Authentication of every request before its route."""

import hmac
import logging
import math
import re
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.auth.key_store import ApiKey
from app.auth.keyring import Keyring, UnknownCredentials
from app.auth.permissions import ANONYMOUS, KEY_HEADER, Caller
from app.auth.sessions import COOKIE, CSRF_HEADER, csrf_token
from app.database.engine import DatabaseUnavailable
from app.errors import problem_responses
from app.errors.problems import Problem
from app.http import uploads
from app.http.loopback import is_loopback
from app.middleware import login_redirect
from app.middleware.client_address import client_address
from app.middleware.rate_limits import TokenBuckets
from app.settings import Settings

logger = logging.getLogger("flowgauge.authentication")

LOGIN: Final = "/login"
# Public paths, which reveal and change nothing. /login checks the key in its body itself.
_HEALTH: Final = ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready")
OPEN: Final = frozenset({*_HEALTH, "/docs", "/openapi.json", LOGIN})
# Routes that read their body themselves, with limits of their own.
UPLOADS: Final = re.compile(
    r"POST (/v1/models/[^/]+/(predict|predict:batch|versions/[^/]+/predict|versions|calibrations)"
    r"|/v1/products/[^/]+/images|/v2/models/[^/]+(/versions/[^/]+)?/infer)",
    re.DOTALL,
)
# Headers of forwarding proxies. A service without keys refuses requests that have one.
FORWARDED: Final = ("x-forwarded-for", "x-real-ip", "forwarded", "via")
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """ASGI middleware that identifies the caller, or answers 401, 403, 408, 413 or 429.

    It sets `request.state.caller`, and `request.state.session`: the secret of the request's session, or None.
    Routes declare the permission they need (app/auth/permissions.py).

    A key in a header proves that the sender knows it. With a session, or without keys, any page on the
    internet can make a browser send requests. So these requests must come from our own pages. Origin, if
    present, must name the requested host. A write with a session must carry its CSRF token. A service without
    keys on this machine answers only to names of this machine, against DNS rebinding.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._settings = settings
        self._requests = TokenBuckets()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope)
            try:
                await self._admit(request)
                if not UPLOADS.fullmatch(f"{scope['method']} {scope['path']}"):
                    receive = await uploads.buffer_body(scope, receive, self._settings)
            except Problem as problem:
                answer = login_redirect.to_login(scope, LOGIN) if problem.name == "unauthenticated" else None
                answer = answer or problem_responses.problem_response(request, problem)
                await answer(scope, receive, send)
                return
        await self.app(scope, receive, send)

    async def _admit(self, request: Request) -> None:
        headers, path = request.headers, request.scope["path"]
        if "upgrade" in headers and "content-length" in headers:
            # uvicorn treats the body as the other protocol's and passes on an empty one.
            raise Problem(
                "invalid-request",
                f"A request with a body cannot become {headers['upgrade'][:64]!r}: send it by HTTP/1.1 "
                "alone, as Java's HttpClient does with version(HTTP_1_1).",
            )
        # Static files are public: the login page needs them.
        if path not in OPEN and not path.startswith(login_redirect.STATIC):
            request.state.caller, request.state.session = await self._identify(request)
        elif path == LOGIN and request.method not in SAFE_METHODS:
            # Otherwise a foreign page could log a browser in with its own key and watch its actions.
            _require_same_origin(headers)

    async def _identify(self, request: Request) -> tuple[Caller, str | None]:
        """Return the caller of a request, and the secret of its session."""
        try:
            key, session = await _look_up_key(request)
        except Problem as problem:
            logger.warning("refused a request from %s: %s", client_address(request.scope), problem.detail)
            raise
        if key is None:
            self._require_this_machine(request)
        if key is None or session is not None:
            _require_same_origin(request.headers)
        if session is not None and request.method not in SAFE_METHODS:
            _require_csrf_token(request.headers, session)
        if key is None:
            return ANONYMOUS, session
        self._apply_rate_limit(key)
        return key.caller, session

    def _apply_rate_limit(self, key: ApiKey) -> None:
        """Count a request against the key's limit, or raise the problem rate-limited."""
        limit = key.requests_per_minute or self._settings.requests_per_minute
        if limit is not None and (wait := self._requests.take(key.id, limit)) > 0:
            seconds = math.ceil(wait)
            raise Problem(
                "rate-limited",
                f"The key's limit of {limit} requests a minute is reached; try again in {seconds} s.",
                seconds,
            )

    def _require_this_machine(self, request: Request) -> None:
        """Without keys, refuse a request to a loopback address from elsewhere or by a foreign host name."""
        server = request.scope.get("server")
        if self._settings.allow_unauthenticated_network or (server and not is_loopback(server[0])):
            return
        host = request.headers.get("host", "")
        name = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(:[0-9]{1,5})?", host)
        if name is None or not is_loopback(name[1].strip("[]").lower()):
            raise Problem(
                "forbidden",
                f"There are no keys, so Host must be this machine, such as 127.0.0.1; it was {host[:64]!r}.",
            )
        # Sent by a proxy on this machine, whether or not FLOWGAUGE_TRUSTED_PROXIES lists it.
        is_forwarded = any(name in request.headers for name in FORWARDED)
        if is_forwarded or (request.client and not is_loopback(request.client.host)):
            raise Problem("forbidden", "There are no keys, so only this machine may use the service.")


def is_still_allowed(scope: Scope) -> bool:
    """Return False if the key or session of an accepted request is no longer valid."""
    try:
        _find_key(Request(scope))
    except Problem:
        return False
    return True


async def _look_up_key(request: Request) -> tuple[ApiKey | None, str | None]:
    """Find a request's key as `_find_key`, also one that another server has just made.

    Raises:
        Problem: unauthenticated; history-unavailable if it is unknown and the database does not answer.
    """
    keyring: Keyring = request.app.state.keyring
    try:
        return _find_key(request)
    except UnknownCredentials:
        try:
            await keyring.look_up()
        except DatabaseUnavailable as error:
            raise problem_responses.to_problem(error) from error
        return _find_key(request)


def _find_key(request: Request) -> tuple[ApiKey | None, str | None]:
    """Return the key of a request and the secret of its session; None if there are no keys.

    A key takes precedence over a cookie, which a browser always sends. A key in the URL is ignored: URLs end
    up in logs and histories.

    Raises:
        Problem: unauthenticated.
    """
    keyring: Keyring = request.app.state.keyring
    key = request.headers.get(KEY_HEADER)
    if key is None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        # Other schemes belong to others, such as a proxy with passwords.
        key = token if scheme.lower() == "bearer" else None
    if key is not None:
        return keyring.require_key(key.strip()), None
    if not keyring.required:
        return None, None
    secret = request.cookies.get(COOKIE)
    if secret is None:
        hint = f"Send a key as {KEY_HEADER} or as Authorization: Bearer, or log in at {LOGIN}."
        raise Problem("unauthenticated", hint)
    return keyring.require_session(secret), secret


def _require_same_origin(headers: Headers) -> None:
    """Refuse a request whose Origin names another host.

    The scheme is not compared: it differs behind a proxy that terminates TLS.
    """
    host = headers.get("host", "").lower()
    for origin in headers.getlist("origin"):
        _, separator, origin_host = origin.lower().partition("://")
        if not separator or origin_host != host:
            raise Problem("forbidden", f"Pages of {origin[:64]!r} may not use this service.")


def _require_csrf_token(headers: Headers, session: str) -> None:
    token = headers.get(CSRF_HEADER, "").encode()
    if not hmac.compare_digest(token, csrf_token(session).encode()):
        raise Problem(
            "forbidden",
            f"A write with a session must carry {CSRF_HEADER}; POST {LOGIN} and GET /v1/session give it.",
        )
