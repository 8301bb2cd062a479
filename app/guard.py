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
from app.access import ANONYMOUS, Caller
from app.client_address import client_address, holder_of
from app.forwarded import last_addresses
from app.keyring import Keyring
from app.keys import Key
from app.limits import MOST_ADDRESSES, TokenBuckets
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
    r"|/2020-11-20/projects/[^/]+/models/[^/]+/detect|/v2/models/[^/]+(/versions/[^/]+)?/infer)",
    re.DOTALL,
)
_REGION: Final = re.compile(r"PUT /v1/models/[^/]+/region", re.DOTALL)
# What proxies say of whom they ask for. A service without keys asks for nothing more: it refuses them all.
FORWARDED: Final = ("x-forwarded-for", "x-real-ip", "forwarded", "via")
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

LOGINS_PER_MINUTE: Final = 20  # by address
REFUSALS_PER_MINUTE: Final = 60  # by address; those beyond are not looked into, nor logged
_MOST_KEYS: Final = 100_000
_SHOWN: Final = 64  # characters of what a client has sent
_MOST_TOLD_OF: Final = 16  # anybody may send what proxies send


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
        self._requests = TokenBuckets(_MOST_KEYS)
        self._logins = TokenBuckets(MOST_ADDRESSES)
        self._refusals = TokenBuckets(MOST_ADDRESSES)
        self._unlogged = 0  # refusals since the last that was
        self._told_of: set[str] = set()  # addresses of proxies that were not named

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # there are none; should there be, this is where they get in
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] == "http":
            scope["headers"] = [(name, _plain(name, value)) for name, value in scope["headers"]]
            try:
                self._admit(scope)
                asked = f"{scope['method']} {scope['path']}"
                if not UPLOADS.fullmatch(asked):
                    seconds = self._settings.upload_idle_seconds
                    most = _most_bytes(scope, asked)
                    receive = await small_bodies.read_ahead(receive, scope["headers"], seconds, most)
            except Problem as problem:
                answer = entrance.to_login(scope, LOGIN) if problem.name == "unauthenticated" else None
                answer = answer or problem_answers.respond(Request(scope), problem)
                await answer(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        self._tell_of_proxy(scope)
        if not _is_open(scope):
            caller, session = self._identify(scope)
            scope["state"] |= {"caller": caller, "session": session}
        elif scope["path"] == LOGIN and scope["method"] not in SAFE_METHODS:
            # Otherwise a page could log a browser in with a key of its own, and see what is done with it.
            _expect_same_origin(Headers(scope=scope))
            _expect_token(
                self._logins.take(holder_of(client_address(scope)), LOGINS_PER_MINUTE), "The limit of logins"
            )

    def _tell_of_proxy(self, scope: Scope) -> None:
        """Log once of an address that a proxy comes from it and was not named: its clients count as one."""
        if len(self._told_of) >= _MOST_TOLD_OF:
            return
        forwarded = [address.decode("latin-1") for address in last_addresses(scope["headers"])]
        if not forwarded:
            return
        address = client_address(scope)
        if address in self._told_of:
            return
        # What one that was named has told has taken its address's place already.
        if self._settings.trusted_proxies and (
            address in forwarded or address in map(_without_port, forwarded)  # the former costs nothing
        ):
            return
        self._told_of.add(address)
        logger.warning(
            "%s passes on requests of others (X-Forwarded-For: %r), and FLOWGAUGE_TRUSTED_PROXIES does not "
            "name it, so all of them count as one address, and TLS before it is not believed",
            address,
            ", ".join(forwarded)[:_SHOWN],
        )

    def _identify(self, scope: Scope) -> tuple[Caller, str | None]:
        keyring: Keyring = scope["app"].state.keyring
        headers = Headers(scope=scope)
        try:
            credential = credentials.find(scope["headers"])
            if credential is not None and credential.kind == "key":
                return self._welcome(keyring.expect_key(credential.secret)), None
            if not keyring.required:
                self._expect_this_machine(scope, headers)
                _expect_same_origin(headers)
                return ANONYMOUS, None
            if credential is None:
                raise _nothing_sent()
            key = keyring.expect_session(credential.secret)
        except Problem as problem:
            if problem.name == "unauthenticated":
                self._count_refusal(scope, problem)
            raise
        _expect_same_origin(headers)
        if scope["method"] not in SAFE_METHODS:
            _expect_csrf_token(headers, credential.secret)
        return self._welcome(key), credential.secret

    def _welcome(self, key: Key) -> Caller:
        """Count a request of a key against its limit."""
        limit = key.requests_per_minute or self._settings.requests_per_minute
        if limit is not None:
            wait = self._requests.take(key.id, limit)
            _expect_token(wait, f"The key's limit of {limit} requests a minute")
        return key.caller

    def _count_refusal(self, scope: Scope, problem: Problem) -> None:
        address = holder_of(client_address(scope))
        wait = self._refusals.take(address, REFUSALS_PER_MINUTE)
        if wait > 0:
            self._unlogged += 1
            scope["state"]["unlogged"] = True
        _expect_token(wait, "The limit of requests without a valid key")
        before = f"; {self._unlogged} beyond the limit were not logged before" if self._unlogged else ""
        self._unlogged = 0
        logger.warning("refused a request from %s: %s%s", address, problem.detail, before)

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


def _is_open(scope: Scope) -> bool:
    # Style sheets and scripts, which the login page needs too, tell nothing either.
    return scope["path"] in OPEN or scope["path"].startswith(entrance.STATIC)


def _most_bytes(scope: Scope, asked: str) -> int:
    """The limit of a body that is no upload."""
    if _is_open(scope):
        return small_bodies.MAX_OPEN_BYTES  # who has shown nothing yet costs next to nothing
    return small_bodies.MAX_REGION_BYTES if _REGION.fullmatch(asked) else small_bodies.MAX_BYTES


def _plain(name: bytes, value: bytes) -> bytes:
    """A header's value; a cookie's without backslashes, which none may have (RFC 6265, section 4.1.1).

    FastAPI reads the cookies of every request, and Python before 3.11.10 unescapes them in quadratic time
    (CVE-2024-7592): one header would stop the service for seconds.
    """
    return value.replace(b"\\", b"?") if name == b"cookie" else value


def is_still_welcome(scope: Scope) -> bool:
    """Whether a request that was let through would be again, now: its key may have been revoked."""
    keyring: Keyring = scope["app"].state.keyring
    try:
        credential = credentials.find(scope["headers"])
        if credential is not None and credential.kind == "key":
            keyring.expect_key(credential.secret)
        elif keyring.required:
            keyring.expect_session("" if credential is None else credential.secret)
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
    how = f"Send a key as {credentials.KEY_HEADER} or as Authorization: Bearer, or log in at {LOGIN}."
    return Problem("unauthenticated", how)


def _expect_csrf_token(headers: Headers, session: str) -> None:
    token = headers.get(CSRF_HEADER, "").encode()
    if not hmac.compare_digest(token, csrf_token(session).encode()):
        raise Problem(
            "forbidden",
            f"A write with a session must carry {CSRF_HEADER}; POST {LOGIN} and GET /v1/session give it.",
        )


def _expect_token(wait: float, limit: str) -> None:
    if wait > 0:
        seconds = math.ceil(wait)
        raise Problem("rate-limited", f"{limit} is reached; try again in {seconds} s.", seconds)


def _without_port(host: str) -> str:
    """An address of X-Forwarded-For, as `client_address` has it."""
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    return client_address({"client": (host, 0)})
