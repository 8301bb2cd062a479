"""Limits on connections, over real ones: to a server of a few routes, or to one where files run out."""

import asyncio
import contextlib
import http.client
import json
import logging
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from app.connections import MAX_PIPELINED, Connection, Listener
from app.draining import Draining
from app.limits import TokenBuckets
from app.server import Server
from tests.certificates import Certificate, make_certificate

ROOT = Path(__file__).parents[2]
ASK = b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n"
FOR_EVER = 60.0  # the longest that anything may take here, on the slowest of machines

Serve = Callable[..., AbstractContextManager[int]]


@pytest.fixture
def release() -> threading.Event:
    """Lets requests of /held be answered."""
    return threading.Event()


@pytest.fixture
def serve(release: threading.Event) -> Serve:
    """Serve on a free port, with a limit on connections; gives the port."""

    @contextmanager
    def begin(limit: int = 100, made: Certificate | None = None, keep_alive: int = 5) -> Iterator[int]:
        app = FastAPI()

        @app.get("/live")
        async def live() -> str:
            return "ok"

        @app.post("/read")
        async def read(request: Request) -> int:
            return len(await request.body())

        @app.post("/refuse")
        async def refuse() -> Response:
            return Response(status_code=403)

        @app.get("/work")
        def work(seconds: float) -> str:
            time.sleep(seconds)
            return "done"

        @app.get("/held")
        def held() -> str:
            return "done" if release.wait(FOR_EVER) else "too late"

        @app.post("/names")
        async def names(request: Request) -> list[str]:
            await request.body()
            return list(request.headers)

        @app.get("/large")
        async def large() -> Response:
            return Response(b"x" * 20_000_000)

        listening = 0

        @app.get("/stream")
        async def stream() -> StreamingResponse:
            async def pieces() -> AsyncIterator[bytes]:
                nonlocal listening
                listening += 1
                try:
                    while True:
                        yield b"piece"
                        await asyncio.sleep(0.02)
                finally:
                    listening -= 1

            return StreamingResponse(pieces())

        @app.get("/listening")
        async def count() -> int:
            return listening

        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            timeout_keep_alive=keep_alive,
            ssl_certfile=made.certificate if made else None,
            ssl_keyfile=made.key if made else None,
        )
        server = Server(config, Draining(), 0, lambda: False)
        listener = Listener(socket.create_server(("127.0.0.1", 0)), limit)
        port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run_app, args=(app, listener))
        thread.start()
        try:
            yield port
        finally:
            release.set()
            server.should_exit = True
            thread.join(FOR_EVER)
            assert not thread.is_alive()

    return begin


@pytest.fixture
def opened() -> Iterator[Callable[..., socket.socket]]:
    """Open a connection, from 127.0.0.1 or another address of this machine."""
    with ExitStack() as stack:

        def connect(port: int, source: str = "127.0.0.1") -> socket.socket:
            connection = stack.enter_context(socket.socket())
            connection.settimeout(FOR_EVER)
            connection.bind((source, 0))
            try:
                connection.connect(("127.0.0.1", port))
            except ConnectionError:  # turned away before it was seen to be open
                connection, end = socket.socketpair()
                end.close()
                stack.enter_context(connection)
            return connection

        yield connect


Opened = Callable[..., socket.socket]
Begun = Callable[[int, bytes], socket.socket]


def rest(connection: socket.socket) -> bytes:
    """All that still comes before it is closed, in whatever way."""
    received = b""
    with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
        while piece := connection.recv(65536):
            received += piece
    return received


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of the next answer."""
    response = http.client.HTTPResponse(connection)
    try:
        response.begin()
        return response.status, response.read()
    finally:
        response.close()


def trickle(connection: socket.socket) -> None:
    """Send a byte now and then, until nobody wants any more."""
    until = time.monotonic() + FOR_EVER
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while time.monotonic() < until:
            connection.sendall(b"x")
            time.sleep(0.05)
    assert time.monotonic() < until, "it was read for ever"


def is_served(connection: socket.socket) -> bool:
    """Whether a request over it is answered."""
    try:
        connection.sendall(ASK)
        return answer(connection) == (200, b'"ok"')
    except ConnectionError:
        return False


class TestHeads:
    HEAD_SECONDS = 0.5

    @pytest.fixture(autouse=True)
    def _hurry(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("app.connections.HEAD_SECONDS", self.HEAD_SECONDS)

    @pytest.fixture
    def begun(self, opened: Opened) -> Begun:
        """Open a connection over which something comes before the time of a head is up.

        Where this process stalls in between, another one is opened. A server that stalls takes what has come
        before it looks at the clock.
        """

        def connect(port: int, data: bytes) -> socket.socket:
            until = time.monotonic() + FOR_EVER
            while True:
                begin = time.monotonic()
                assert begin < until, "this machine is too slow"
                connection = opened(port)
                with contextlib.suppress(ConnectionError):
                    connection.sendall(data)
                    if time.monotonic() - begin < self.HEAD_SECONDS / 2:
                        return connection
                connection.close()

        return connect

    def test_who_says_nothing_is_left(self, serve: Serve, opened: Opened) -> None:
        with serve() as port:
            assert rest(opened(port)) == b""

    @pytest.mark.parametrize("beginning", [b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nX-A: b\r\nX-"])
    def test_so_is_who_begins_and_stops(self, serve: Serve, begun: Begun, beginning: bytes) -> None:
        with serve() as port:
            assert rest(begun(port, beginning)) == b""

    def test_so_is_who_trickles(self, serve: Serve, begun: Begun) -> None:
        with serve() as port:
            trickle(begun(port, b"GET / HTTP/1.1\r\nX-A: "))

    def test_so_is_who_trickles_a_later_request(self, serve: Serve, begun: Begun) -> None:
        with serve(keep_alive=600) as port:
            connection = begun(port, ASK)
            assert answer(connection) == (200, b'"ok"')
            assert is_served(connection)
            connection.sendall(b"GET / HTTP/1.1\r\nX-A: ")
            trickle(connection)

    def test_so_is_who_trickles_after_a_pipelined_request(self, serve: Serve, begun: Begun) -> None:
        with serve(keep_alive=600) as port:
            connection = begun(port, ASK + b"GET / HTTP/1.1\r\nX-A: ")
            assert answer(connection) == (200, b'"ok"')
            trickle(connection)

    def test_requests_after_each_other_are_not(self, serve: Serve, begun: Begun) -> None:
        with serve(keep_alive=600) as port:
            connection = begun(port, ASK)
            assert answer(connection) == (200, b'"ok"')
            for _ in range(10):
                time.sleep(0.15)  # three times the limit, all in all
                assert is_served(connection)

    def test_between_requests_uvicorn_decides(self, serve: Serve, begun: Begun) -> None:
        with serve(keep_alive=600) as port:
            connection = begun(port, ASK)
            assert answer(connection) == (200, b'"ok"')
            time.sleep(1)
            assert is_served(connection)
        with serve(keep_alive=1) as port:
            connection = begun(port, ASK)
            assert answer(connection) == (200, b'"ok"')
            assert rest(connection) == b""

    def test_nor_are_pipelined_requests(
        self, serve: Serve, begun: Begun, release: threading.Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        received = b""

        def wait_for(done: int) -> None:
            nonlocal received
            while received.count(b'"done"') < done:
                piece = connection.recv(65536)
                assert piece, "it was left"
                received += piece

        work = b"GET /work?seconds=0.2 HTTP/1.1\r\nHost: x\r\n\r\n"
        held = b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n"
        with serve(keep_alive=600) as port:
            connection = begun(port, work * 5 + held + ASK[:10])
            wait_for(done=5)  # twice the limit
            # From the last answer on, what is behind it has its time, in which this process may stall.
            monkeypatch.setattr("app.connections.HEAD_SECONDS", FOR_EVER)
            release.set()
            wait_for(done=6)
            connection.sendall(ASK[10:])
            assert answer(connection) == (200, b'"ok"')

    def test_nor_is_a_long_body_or_a_long_wait(self, serve: Serve, begun: Begun) -> None:
        with serve(keep_alive=600) as port:
            head = b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
            connection = begun(port, head)
            for _ in range(10):
                time.sleep(0.15)
                connection.sendall(b"x")
            assert answer(connection) == (200, b"10")
            connection.sendall(b"GET /work?seconds=1.5 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer(connection) == (200, b'"done"')

    def test_garbage_cannot_fill_the_log(
        self, serve: Serve, begun: Begun, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Connection, "_complaints", TokenBuckets(10))
        monkeypatch.setattr("app.connections.COMPLAINTS_PER_MINUTE", 3)
        caplog.set_level(logging.WARNING, "flowgauge.connections")
        with serve() as port:
            for _ in range(10):
                assert rest(begun(port, b"\0\0\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        lines = [r.getMessage() for r in caplog.records if "no HTTP request came" in r.getMessage()]
        assert len(lines) == 3
        assert all("from 127.0.0.1 id=" in line for line in lines)

    def test_requests_by_the_thousand_are_not_kept(self, serve: Serve, begun: Begun) -> None:
        """Each is a few bytes on the network and some kilobytes here."""
        held = b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n"
        with serve(keep_alive=600) as port:
            connection = begun(port, held + ASK * 1000)
            assert rest(connection) == b""
            assert answer(begun(port, ASK)) == (200, b'"ok"')

    def test_a_few_that_come_at_once_are_answered_in_their_order(self, serve: Serve, begun: Begun) -> None:
        asked = [b"GET /work?seconds=0.01 HTTP/1.1\r\nHost: x\r\n\r\n", ASK] * (MAX_PIPELINED // 2)
        with serve(keep_alive=600) as port:
            last = ASK[:-2] + b"Connection: close\r\n\r\n"
            received = rest(begun(port, b"".join([*asked, last])))
        answers = [b'"done"', b'"ok"'] * (MAX_PIPELINED // 2)
        assert re.findall(rb'"(?:done|ok)"', received) == [*answers, b'"ok"']

    def test_a_body_behind_requests_that_came_with_its_head_is_read(self, serve: Serve, begun: Begun) -> None:
        head = b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n"
        with serve(keep_alive=600) as port:
            connection = begun(port, ASK * 5 + head)
            connection.sendall(b"x" * 300_000)
            received = b""
            while b"300000" not in received:
                piece = connection.recv(65536)
                assert piece, received
                received += piece
        assert received.count(b'"ok"') == 5

    def test_garbage_is_still_answered(self, serve: Serve, begun: Begun) -> None:
        with serve() as port:
            assert rest(begun(port, b"\0\0\r\n\r\n")).startswith(b"HTTP/1.1 400 ")


class TestHostileHeads:
    """What a client of good will does not send; the connection ends, and memory does not grow with it."""

    @staticmethod
    def ends(connection: socket.socket, piece: bytes, most: int) -> bytes:
        """Send a piece again and again, until it is not taken any more; gives what was answered."""
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent <= most:
                connection.sendall(piece)
                sent += len(piece)
        assert sent <= most, "it was read for ever"
        return rest(connection)

    @pytest.mark.parametrize(
        ("begun", "piece"),
        [
            (b"GET /", b"x" * 8192),
            (b"GET / HTTP/1.1\r\nHost: x\r\nX-", b"x" * 8192),
            (b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ", b"x" * 8192),
            (b"GET / HTTP/1.1\r\nHost: x\r\n", b"X-A: b\r\n" * 1024),
            (b"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x" * 8192),
            (b"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: ", b"x" * 8192),
            (
                b"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
                b"X-A: b\r\n" * 1024,
            ),
        ],
        ids=["target", "name", "value", "headers", "chunk extension", "trailer", "trailers"],
    )
    def test_one_without_end_is_left(self, serve: Serve, opened: Opened, begun: bytes, piece: bytes) -> None:
        with serve() as port:
            connection = opened(port)
            connection.sendall(begun)
            assert b"200 OK" not in self.ends(connection, piece, 64 * 2**20)
            assert is_served(opened(port))

    def test_one_that_is_too_large_is_refused_though_it_comes_at_once(
        self, serve: Serve, opened: Opened
    ) -> None:
        with serve() as port:
            connection = opened(port)
            connection.sendall(b"GET /live HTTP/1.1\r\nHost: x\r\nX-A: " + b"x" * 70_000 + b"\r\n\r\n")
            assert b"200 OK" not in rest(connection)
            connection = opened(port)
            connection.sendall(b"GET /live HTTP/1.1\r\nHost: x\r\nX-A: " + b"x" * 60_000 + b"\r\n\r\n")
            assert answer(connection) == (200, b'"ok"')

    @pytest.mark.parametrize(
        "head",
        [
            b"GET /live HTTP/1.1\r\n\r\n",
            b"GET /live HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
            b"GET /live\xff HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /live\x0c HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /live\ta HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /live HTTP/1.1\r\nHost: x\r\nX-A: a\0b\r\n\r\n",
            b"GET /live HTTP/1.1\r\nHost: x\r\nX A: b\r\n\r\n",
            b"GET http://x HTTP/1.1\r\nHost: x\r\n\r\n",
            b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
            b"CONNECT /live HTTP/1.1\r\nHost: x\r\n\r\n",
            b"CONNECT * HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nxx",
            b"CONNECT /live HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
            b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
            b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
            b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        ],
    )
    def test_one_that_is_none_is_answered_400(self, serve: Serve, opened: Opened, head: bytes) -> None:
        with serve() as port:
            connection = opened(port)
            connection.sendall(head)
            received = rest(connection)
            assert b" 200 " not in received
            assert b" 400 " in received
            assert is_served(opened(port))

    def test_one_that_is_none_is_a_problem_that_the_log_knows(
        self, serve: Serve, opened: Opened, caplog: pytest.LogCaptureFixture
    ) -> None:
        """As simple clients send it, letters beyond ASCII and all."""
        with serve() as port:
            connection = opened(port)
            connection.sendall("GET /live?part_id=Teil\xe4 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head, _, body = rest(connection).partition(b"\r\n\r\n")
        problem = json.loads(body)
        assert (problem["type"], problem["status"]) == ("invalid-request", 400)
        assert "percent-encoded" in problem["detail"]
        assert b"content-type: application/problem+json" in head
        assert f"x-request-id: {problem['request_id']}".encode() in head
        [line] = [record.getMessage() for record in caplog.records if record.name == "flowgauge.connections"]
        assert "127.0.0.1" in line
        assert problem["request_id"] in line

    def test_a_trailer_is_no_header(self, serve: Serve, opened: Opened) -> None:
        with serve() as port:
            connection = opened(port)
            connection.sendall(
                b"POST /names HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
                b"X-API-Key: y\r\n\r\n"
            )
            assert answer(connection) == (200, b'["host","transfer-encoding"]')
            assert is_served(connection)


class TestUpgrades:
    """Java's HttpClient asks for HTTP/2 in the first request of a connection, also in one with a body."""

    ASKS = b"Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"

    @pytest.mark.parametrize(
        ("request_line", "body", "wanted"),
        [(b"GET /live", b"", b'"ok"'), (b"POST /read", b"x" * 300_000, b"300000")],
    )
    def test_a_request_that_asks_for_one_is_answered_as_any_other(
        self, serve: Serve, opened: Opened, request_line: bytes, body: bytes, wanted: bytes
    ) -> None:
        length = b"Content-Length: %d\r\n" % len(body) if body else b""
        request = request_line + b" HTTP/1.1\r\n" + self.ASKS + length + b"\r\n" + body
        with serve() as port:
            connection = opened(port)
            for _ in range(2):
                connection.sendall(request)
                assert answer(connection) == (200, wanted)
            assert is_served(connection)

    def test_so_are_many_at_once_and_those_that_come_in_pieces(self, serve: Serve, opened: Opened) -> None:
        request = b"POST /read HTTP/1.1\r\n" + self.ASKS + b"Content-Length: 3\r\n\r\nxyz"
        with serve() as port:
            connection = opened(port)
            connection.sendall(request * 50)
            received = b""
            while received.count(b"200 OK") < 50:
                received += connection.recv(65536)
            connection = opened(port)
            for byte in request:
                connection.sendall(bytes([byte]))
            assert answer(connection) == (200, b"3")

    def test_the_other_protocol_is_not_spoken(self, serve: Serve, opened: Opened) -> None:
        with serve() as port:
            connection = opened(port)
            connection.sendall(b"GET /live HTTP/1.1\r\n" + self.ASKS + b"\r\n\0\0\xff")
            assert b" 400 " in rest(connection)
            assert is_served(opened(port))


def test_the_rest_of_an_answered_body_has_its_time(
    serve: Serve, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = b"POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    with serve(keep_alive=600) as port:
        connection = opened(port)
        connection.sendall(head % 10)
        assert answer(connection) == (403, b"")
        connection.sendall(b"x" * 10)
        assert is_served(connection)
        monkeypatch.setattr("app.connections.REST_SECONDS", 0.5)  # not before: what came was to be in time
        connection.sendall(head % 10**9)
        assert answer(connection) == (403, b"")
        trickle(connection)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such limit")
def test_who_does_not_take_the_answer_is_left(
    serve: Serve, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.connections.STALLED_SECONDS", 1.0)
    with serve(limit=2) as port:
        connection = opened(port)
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        # It holds the one connection that its address may have, and reads nothing.
        until = time.monotonic() + FOR_EVER
        while not is_served(opened(port)):
            assert time.monotonic() < until, "it was waited for, for ever"
            time.sleep(0.2)


@pytest.mark.parametrize("waiting", [0, 1, 2])
def test_who_leaves_is_answered_no_further_whatever_waits_behind(
    serve: Serve, opened: Opened, waiting: int
) -> None:
    def listening() -> bytes:
        with opened(port) as other:
            other.sendall(b"GET /listening HTTP/1.1\r\nHost: x\r\n\r\n")
            return answer(other)[1]

    with serve() as port:
        with opened(port) as connection:
            connection.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
            while b"piece" not in connection.recv(65536):
                pass
            assert listening() == b"1"
            connection.sendall(waiting * ASK)
            assert is_served(opened(port))  # by then the server has read what waits
        until = time.monotonic() + FOR_EVER
        while listening() != b"0":
            assert time.monotonic() < until, "it is sent to for ever"
            time.sleep(0.05)


class TestRoom:
    @pytest.fixture(autouse=True)
    def _patience(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Those that are counted stay until they are closed here, however long a flood takes."""
        monkeypatch.setattr("app.connections.HEAD_SECONDS", 600)

    def test_a_flood_leaves_room_for_others(
        self, serve: Serve, opened: Opened, caplog: pytest.LogCaptureFixture
    ) -> None:
        with serve(limit=20) as port, caplog.at_level(logging.WARNING):
            flood = [opened(port) for _ in range(300)]
            for _ in range(5):
                connection = http.client.HTTPConnection("127.0.0.1", port, FOR_EVER, ("127.0.0.2", 0))
                connection.request("GET", "/live")
                assert connection.getresponse().status == 200
                connection.close()
            served = [is_served(connection) for connection in flood]
        assert served == [True] * 10 + [False] * 290
        assert "Error" not in caplog.text
        (line,) = caplog.messages
        assert "turned away" in line
        assert "127.0.0.1" in line
        assert "FLOWGAUGE_MAX_CONNECTIONS allows 20" in line

    def test_later_ones_are_counted_in_the_next_line(
        self, serve: Serve, opened: Opened, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with serve(limit=2) as port, caplog.at_level(logging.WARNING):
            opened(port)
            for _ in range(5):
                assert rest(opened(port)) == b""
            assert [message.split(",")[0][-3:] for message in caplog.messages] == [": 1"]
            monkeypatch.setattr(
                "app.connections.time", SimpleNamespace(monotonic=lambda: time.monotonic() + 61)
            )
            assert rest(opened(port)) == b""
        assert [message.split(",")[0][-3:] for message in caplog.messages] == [": 1", ": 5"]

    def test_what_is_closed_makes_room(self, serve: Serve, opened: Opened) -> None:
        def soon(port: int) -> socket.socket:
            until = time.monotonic() + FOR_EVER
            while not is_served(connection := opened(port)):
                assert time.monotonic() < until, "the room is not given back"
            return connection

        with serve(limit=4, keep_alive=600) as port:
            for _ in range(10):
                held = [soon(port), soon(port)]
                assert not is_served(opened(port))
                assert [is_served(connection) for connection in held] == [True, True]
                for connection in held:
                    connection.close()

    @pytest.mark.parametrize(
        ("limit", "shares"), [(2, [1, 1, 0]), (12, [6, 3, 2, 1, 0]), (13, [7, 3, 2, 1, 0])]
    )
    def test_each_address_holds_at_most_what_it_leaves_free(
        self, serve: Serve, opened: Opened, limit: int, shares: list[int]
    ) -> None:
        with serve(limit, keep_alive=600) as port:
            for number, share in enumerate(shares, start=1):
                flood = [opened(port, f"127.0.0.{number}") for _ in range(limit)]
                assert sum(is_served(connection) for connection in flood) == share


def hello(made: Certificate) -> bytes:
    """What a client begins a handshake with. A socket of `ssl` that is refused may be left open by Python."""
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context(cafile=made.certificate)
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


class TestTls:
    @pytest.fixture
    def made(self, tmp_path: Path) -> Certificate:
        return make_certificate(tmp_path, "IP:127.0.0.1")

    @pytest.fixture
    def secure(self, made: Certificate, opened: Opened) -> Callable[..., ssl.SSLSocket]:
        context = ssl.create_default_context(cafile=made.certificate)

        def connect(port: int, source: str = "127.0.0.1") -> ssl.SSLSocket:
            return context.wrap_socket(opened(port, source), server_hostname="127.0.0.1")

        return connect

    def test_who_does_not_shake_hands_is_left(
        self, serve: Serve, opened: Opened, made: Certificate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("app.server.HANDSHAKE_SECONDS", 0.5)
        with serve(made=made) as port:
            assert rest(opened(port)) == b""
            trickler = opened(port)
            trickler.sendall(b"\x16\x03\x01\x02\x00")  # a record that is never complete
            trickle(trickler)

    def test_who_says_nothing_after_it_is_left(
        self,
        serve: Serve,
        secure: Callable[..., ssl.SSLSocket],
        made: Certificate,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("app.connections.HEAD_SECONDS", 0.5)
        with serve(made=made, keep_alive=600) as port:
            with secure(port) as silent:
                assert rest(silent) == b""
            monkeypatch.setattr("app.connections.HEAD_SECONDS", FOR_EVER)
            with secure(port) as later:
                assert is_served(later)
                assert is_served(later)
                monkeypatch.setattr("app.connections.HEAD_SECONDS", 0.5)
                later.sendall(b"GET / HTTP/1.1\r\nX-A: ")
                trickle(later)

    def test_connections_count_before_the_handshake(
        self, serve: Serve, opened: Opened, secure: Callable[..., ssl.SSLSocket], made: Certificate
    ) -> None:
        with serve(limit=8, made=made) as port:
            silent = [opened(port) for _ in range(20)]
            assert [rest(connection) for connection in silent[4:]] == [b""] * 16
            late = opened(port)
            with contextlib.suppress(ConnectionError):
                late.sendall(hello(made))
            assert rest(late) == b""
            for _ in range(3):
                with secure(port, "127.0.0.2") as other:
                    assert is_served(other)


OUT_OF_FILES = """
import logging, os, resource, socket
import uvicorn
from fastapi import FastAPI
from app.connections import Connection, Listener
from app.draining import Draining
from app.server import Server

logging.basicConfig()
app = FastAPI()

@app.get("/live")
async def live():
    return "ok"

listener = Listener(socket.create_server(("127.0.0.1", 0)), 10_000)
config = uvicorn.Config(app, http=Connection, ws="none", lifespan="off", log_config=None)
config.load()
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20,) * 2)
print(listener.getsockname()[1], flush=True)
Server(config, Draining(), 0, lambda: False).run_app(app, listener)
"""


def test_where_files_run_out_the_log_does_not_fill_the_disk(opened: Opened) -> None:
    command = [sys.executable, "-c", OUT_OF_FILES]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            flood = [opened(port) for _ in range(100)]
            assert is_served(flood[0])
            time.sleep(2)
            for connection in flood:
                connection.close()
            assert is_served(opened(port))
        finally:
            process.terminate()
            _, log = process.communicate(timeout=FOR_EVER)
    # asyncio tries again each second, and would otherwise say it two thousand times in each.
    assert 1 <= log.count("out of system resource") <= FOR_EVER


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "possible", "after"),
    [
        (300, 4000, 1000, 1000, 1256),
        (3000, 4000, 1000, 1000, 3000),
        (300, 800, 1000, 544, 800),
        (300, 300, 1000, 150, 300),
    ],
)
def test_files_for_connections(soft: int, hard: int, wanted: int, possible: int, after: int) -> None:
    program = f"""
import logging, resource
logging.basicConfig()
from app.connections import allow_connections
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(allow_connections({wanted}), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == [str(possible), str(after)]
    if possible == wanted:
        assert done.stderr == ""
    else:
        assert f"may have {after} files open, so there will be {possible} connections" in done.stderr
        assert "Raise its limit to 1256" in done.stderr


def test_the_end_of_an_answer_does_not_wait_for_its_beginning() -> None:
    """Nagle's algorithm and delayed acknowledgements would add 40 ms to every answer of two writes."""
    listener = Listener(socket.create_server(("127.0.0.1", 0)), 4)
    with listener, socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
