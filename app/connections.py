"""Connections cost a client nothing and the server a file each: how many there may be, and for how long."""

import asyncio
import errno
import logging
import re
import resource
import socket
import struct
import time
import uuid
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal

import httptools
from uvicorn import Config
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from app import problem_answers, problems
from app.client_address import holder_of
from app.limits import MOST_ADDRESSES, TokenBuckets
from app.schemas.problem import ProblemDetails

logger = logging.getLogger("flowgauge.connections")

# A request's head is a few hundred bytes: whoever takes longer is not about to ask for anything.
HEAD_SECONDS: Final = 10.0
# What is left of a body after its answer, such as a refusal, is read and thrown away for so long: a client
# that is still sending would otherwise lose the answer.
REST_SECONDS: Final = 60.0
# A client that takes nothing of its answer for so long is left; so is one that has vanished.
STALLED_SECONDS: Final = 60.0
# Of a head, and of what may stand between two pieces of a body.
MAX_HEAD_BYTES: Final = 64 * 1024
# Requests of a connection that wait for the answer to the one before; browsers send none so.
MAX_PIPELINED: Final = 50
_TARGET: Final = re.compile(rb"[\x21-\x7e]+")
# For TLS: the handshake, and the farewell.
HANDSHAKE_SECONDS: Final = 10.0
FAREWELL_SECONDS: Final = 5.0

# Files for all that is no connection: libraries, models, the database, pictures on their way to the disk.
OTHER_FILES: Final = 256

COMPLAINTS_PER_MINUTE: Final = 60  # of an address that are logged
_LOG_SECONDS: Final = 60.0
_SHORTAGE_SECONDS: Final = 1.0  # after which asyncio tries again
_TURNED_AWAY_AT_ONCE: Final = 100  # then the loop has other things to do
_NO_FILES: Final = (errno.EMFILE, errno.ENFILE)
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: close at once, keep nothing


class Connection(HttpToolsProtocol):
    """uvicorn's connection over httptools, for clients that are not to be trusted.

    uvicorn closes a connection that is silent after an answer (keep-alive). It waits for ever for the first
    request, for a head that comes byte by byte, and for the rest of a body that has been answered; here each
    has its time. httptools keeps a head whatever its size, and takes some that no client of good will sends:
    here they are answered 400 as by a stricter parser.
    """

    _complaints = TokenBuckets(MOST_ADDRESSES)

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._answered: RequestResponseCycle | None = None
        self._owed: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._part: Literal["nothing", "head", "body"] = "nothing"  # of the next request, so far
        self._unread = 0  # bytes since there was something for the service

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take up what has come."""
        self._unset_keepalive_if_required()
        self._unread += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError:
            if self.transport.is_closing():  # this was told to go
                return
            self.send_400_response(
                "This is no valid HTTP request. In an address, spaces and all that is not ASCII must be "
                "percent-encoded."
            )
        # One header, a chunk's extension or a trailer, which never end, are nothing that the parser tells of.
        if self._unread > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._complain("a head of %s, or what stands between two pieces of a body, is too large")
            self.transport.abort()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Answer with a problem what cannot be given to the service, and close."""
        request_id = uuid.uuid4().hex
        self._complain(f"no HTTP request came from %s id={request_id}")
        told = ProblemDetails(
            type="invalid-request",
            title=problems.TYPES["invalid-request"].title,
            status=400,
            detail=msg,
            instance="/",
            request_id=request_id,
        )
        body = told.model_dump_json().encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", problem_answers.MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", request_id.encode()),
            (b"connection", b"close"),
        ]
        lines = [b"HTTP/1.1 400 Bad Request", *(b"%s: %s" % header for header in headers), b"", body]
        self.transport.write(b"\r\n".join(lines))
        self.transport.close()

    def on_message_begin(self) -> None:
        """See a request begin."""
        super().on_message_begin()
        self._part = "head"

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; a trailer is none, whatever it is called."""
        if self._part == "head":
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to answer a request.

        Raises:
            ValueError: it is none, and is answered 400; or there are too many, and the connection is cut off.
        """
        if len(self.pipeline) >= MAX_PIPELINED:
            # A head is a few bytes and a request some kilobytes: thousands fit into one look at the network.
            self.transport.abort()
            raise ValueError("too many requests wait for the answers before theirs")
        if self.parser.get_method() == b"CONNECT":
            raise ValueError("this is no proxy")  # after the head the parser would take all for a tunnel's
        if self.parser.should_upgrade():
            return  # `_parse` tells this head again
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        hosts = sum(name == b"host" for name, _ in self.headers)
        if size > MAX_HEAD_BYTES or not _TARGET.fullmatch(self.url):
            raise ValueError("the head is too large, or its target has bytes that no address has")
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            raise ValueError(f"a request names one host; got {hosts}")  # RFC 9112, section 3.2
        self._part, self._unread = "body", 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """See the end of a request."""
        if self._part == "body":
            super().on_message_complete()
            self._part, self._unread = "nothing", 0

    def on_response_complete(self) -> None:
        """Go on to the next request."""
        super().on_response_complete()
        if self.pipeline and not self.transport.is_closing():
            self.flow.pause_reading()  # nobody needs more of them yet
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting, and stop answering."""
        super().connection_lost(exc)
        # uvicorn tells the latest request alone, which may not be the one that is being answered.
        if self._answered is not None:
            self._answered.disconnected = True
            self._answered.message_event.set()
        self._await(None)

    def _complain(self, message: str) -> None:
        """Log what is wrong with a client, at most so often: nobody is to write over all other lines."""
        host = self.client[0] if self.client else "somebody"
        if self._complaints.take(host, COMPLAINTS_PER_MINUTE) == 0:
            logger.warning(message, host)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def _parse(self, data: bytes) -> None:
        """Parse what has come; a request to go on in another protocol is taken for an ordinary one.

        Java's HttpClient asks for HTTP/2 in its first request, be there a body or not. The parser takes what
        comes after such a head for the other protocol's; so another one is told the head without the wish.
        """
        left = memoryview(data)
        while True:
            try:
                self.parser.feed_data(left)
            except httptools.HttpParserUpgrade as upgrade:
                left = left[upgrade.args[0] :]
                request = b"%s %s HTTP/%s" % (
                    self.parser.get_method(),
                    self.url,
                    self.parser.get_http_version().encode(),
                )
                kept = [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
                self.parser.feed_data(b"\r\n".join([request, *kept, b"\r\n"]))
            else:
                return

    def _watch(self) -> None:
        if self.transport.is_closing():
            self._await(None)
        elif self.cycle is not None and not self.cycle.response_complete:
            self._await(None)  # how slow a body may be, the service says
        elif self._part == "body":
            self._unset_keepalive_if_required()
            self._await(REST_SECONDS)
        elif self._part == "head" or self.timeout_keep_alive_task is None:
            self._unset_keepalive_if_required()
            self._await(HEAD_SECONDS)
        else:
            self._await(None)

    def _await(self, seconds: float | None) -> None:
        if seconds == self._owed:
            return  # the clock goes on, whatever trickles in
        self._owed = seconds
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)


class Listener(socket.socket):
    """A socket that listens, and turns connections away beyond a limit, before TLS or HTTP see them.

    An address may hold at most as many connections as it leaves free for others. So one alone can have half
    of them, two a third each, and whoever comes while others flood still finds room. For this, the 64 bits of
    IPv6 that one household has are one address.

    Args:
        listener: listens; it is taken over.
        limit: of connections at a time, over all addresses.
    """

    def __init__(self, listener: socket.socket, limit: int) -> None:
        super().__init__(listener.family, listener.type, listener.proto, fileno=listener.detach())
        # asyncio would do this for connections of a protocol that it knows by number; these have number 0.
        # Without it the end of an answer waits 40 ms for the client to acknowledge its beginning.
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; its connections inherit both
            self.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * STALLED_SECONDS))
        self._limit = limit
        self._held: Counter[str] = Counter()
        self._open = 0
        self._turned_away = 0
        self._next_line = 0.0
        self._short_until = 0.0

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection that there is room for.

        Raises:
            BlockingIOError: there is none now.
            OSError: of the system, such as that there are no files left.
        """
        for _ in range(_TURNED_AWAY_AT_ONCE):
            connection, address = self._accept_any()
            holder = holder_of(address[0])
            if self._held[holder] < self._limit - self._open:
                self._held[holder] += 1
                self._open += 1
                return _Counted(connection, partial(self._release, holder)), address
            self._turn_away(connection, holder)
        raise BlockingIOError

    def _accept_any(self) -> tuple[socket.socket, Any]:
        # Where files run out, asyncio pauses for a second, but (Python 3.11) only after it has tried as often
        # as the queue is long, with an entry in the log each.
        if time.monotonic() < self._short_until:
            raise BlockingIOError
        try:
            return super().accept()
        except OSError as error:
            if error.errno in _NO_FILES:
                self._short_until = time.monotonic() + _SHORTAGE_SECONDS
            raise

    def _turn_away(self, connection: socket.socket, holder: str) -> None:
        self._turned_away += 1
        now = time.monotonic()
        if now >= self._next_line:
            logger.warning(
                "connections turned away since this was last said: %d, the latest from %s, which holds %d of "
                "the %d that are open; FLOWGAUGE_MAX_CONNECTIONS allows %d, and one address half of it",
                self._turned_away,
                holder,
                self._held[holder],
                self._open,
                self._limit,
            )
            self._turned_away = 0
            self._next_line = now + _LOG_SECONDS
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.close()

    def _release(self, holder: str) -> None:
        self._open -= 1
        self._held[holder] -= 1
        if not self._held[holder]:
            del self._held[holder]


class _Counted(socket.socket):
    """An accepted connection that says when it is closed, whatever became of it."""

    def __init__(self, connection: socket.socket, closed: Callable[[], None]) -> None:
        super().__init__(connection.family, connection.type, connection.proto, fileno=connection.detach())
        self._on_close: Callable[[], None] | None = closed

    def close(self) -> None:
        super().close()
        closed, self._on_close = self._on_close, None
        if closed is not None:
            closed()


def allow_connections(wanted: int) -> int:
    """Let this process have so many connections, as far as the system lets it.

    Args:
        wanted: connections at a time.

    Returns:
        How many there can be beside the files that the service needs; said in the log where it is fewer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        reachable = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
            soft = reachable
        except (OSError, ValueError):
            pass  # macOS has a limit of its own below "unlimited"
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    possible = max(soft - OTHER_FILES, soft // 2)
    logger.warning(
        "FLOWGAUGE_MAX_CONNECTIONS is %d, but this process may have %d files open, so there will be %d "
        "connections at most. Raise its limit to %d (ulimit -n, LimitNOFILE of systemd, --ulimit nofile of "
        "Docker).",
        wanted,
        soft,
        possible,
        needed,
    )
    return possible
