"""Who may come in: every request passes here before any route sees it."""

import hmac
import logging
import math
import re
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app import credentials, problem_answers, small_bodies
from app.access import ANONYMOUS, KEY_HEADER, Caller
from app.client_address import client_address
from app.keyring import Keyring
from app.keys import Key
from app.limits import TokenBuckets
from app.loopback import is_loopback
from app.problems import Problem
from app.sessions import CSRF_HEADER, csrf_token
from app.settings import Settings
from app.web import entrance

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
    that it came with or None. Routes say which permission they need (app/access.py).

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
        if scope["type"] == "websocket":  # there are none; should there be, this is where they get in
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] == "http":
            try:
                self._admit(scope)
                if not UPLOADS.fullmatch(f"{scope['method']} {scope['path']}"):
                    seconds = self._settings.upload_idle_seconds
                    receive = await small_bodies.read_ahead(receive, scope["headers"], seconds)
            except Problem as problem:
                answer = entrance.to_login(scope, LOGIN) if problem.name == "unauthenticated" else None
                answer = answer or problem_answers.respond(Request(scope), problem)
                await answer(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if "upgrade" in headers and "content-length" in headers:
            # uvicorn takes the body for the other protocol's, and would hand on an empty one.
            raise Problem(
                "invalid-request",
                f"A request with a body cannot become {headers['upgrade'][:64]!r}: send it by HTTP/1.1 "
                "alone, as Java's HttpClient does with version(HTTP_1_1).",
            )
        # Style sheets and scripts, which the login page needs too, tell nothing either.
        if scope["path"] not in OPEN and not scope["path"].startswith(entrance.STATIC):
            caller, session = self._identify(scope, headers)
            scope["state"] |= {"caller": caller, "session": session}
        elif scope["path"] == LOGIN and scope["method"] not in SAFE_METHODS:
            # Otherwise a page could log a browser in with a key of its own, and see what is done with it.
            _expect_same_origin(headers)

    def _identify(self, scope: Scope, headers: Headers) -> tuple[Caller, str | None]:
        keyring: Keyring = scope["app"].state.keyring
        try:
            credential = credentials.find(scope["headers"])
            if credential is not None and credential.kind == "key":
                return self._welcome(keyring.require_key(credential.secret)), None
            if not keyring.required:
                self._expect_this_machine(scope, headers)
                _expect_same_origin(headers)
                return ANONYMOUS, None
            if credential is None:
                raise _nothing_sent()
            key = keyring.require_session(credential.secret)
        except Problem as problem:
            if problem.name == "unauthenticated":
                logger.warning("refused a request from %s: %s", client_address(scope), problem.detail)
            raise
        _expect_same_origin(headers)
        if scope["method"] not in SAFE_METHODS:
            _expect_csrf_token(headers, credential.secret)
        return self._welcome(key), credential.secret

    def _welcome(self, key: Key) -> Caller:
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

    def _expect_this_machine(self, scope: Scope, headers: Headers) -> None:
        """Without keys, a request to an address of this machine comes from it, and calls it by its name."""
        server, client = scope.get("server"), scope.get("client")
        if self._settings.allow_unauthenticated_network or (server and not is_loopback(server[0])):
            return
        host = headers.get("host", "")
        name = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(:[0-9]{1,5})?", host)
        if name is None or not is_loopback(name[1].strip("[]").lower()):
            raise Problem(
                "forbidden",
                f"There are no keys, so the Host must be this machine, as 127.0.0.1; it was {host[:64]!r}.",
            )
        # Told by a proxy on this machine, whether or not FLOWGAUGE_TRUSTED_PROXIES has it.
        forwarded = any(name in headers for name in FORWARDED)
        if forwarded or (client and not is_loopback(client[0])):
            raise Problem("forbidden", "There are no keys, so nobody but this machine may use the service.")


def is_still_allowed(scope: Scope) -> bool:
    """Whether a request that was let through would be again, now: its key may have been revoked."""
    keyring: Keyring = scope["app"].state.keyring
    try:
        credential = credentials.find(scope["headers"])
        if credential is not None and credential.kind == "key":
            keyring.require_key(credential.secret)
        elif keyring.required:
            keyring.require_session("" if credential is None else credential.secret)
    except Problem:
        return False
    return True


def _expect_same_origin(headers: Headers) -> None:
    """Origin, where it is sent, must name the host that was asked.

    Hosts are compared without the scheme: behind a proxy that ends TLS they differ.
    """
    host = headers.get("host", "").lower()
    for origin in headers.getlist("origin"):
        _, separator, theirs = origin.lower().partition("://")
        if not separator or theirs != host:
            raise Problem("forbidden", f"Pages of {origin[:64]!r} may not use this service.")


def _nothing_sent() -> Problem:
    how = f"Send a key as {KEY_HEADER} or as Authorization: Bearer, or log in at {LOGIN}."
    return Problem("unauthenticated", how)


def _expect_csrf_token(headers: Headers, session: str) -> None:
    token = headers.get(CSRF_HEADER, "").encode()
    if not hmac.compare_digest(token, csrf_token(session).encode()):
        raise Problem(
            "forbidden",
            f"A write with a session must carry {CSRF_HEADER}; POST {LOGIN} and GET /v1/session give it.",
        )
