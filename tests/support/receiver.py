"""A receiver of webhooks for tests: a real HTTP server, which can be stopped and started on its port."""

import json
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.support.ports import reserved_port

# Status and headers; None closes the connection without an answer.
Answer = tuple[int, Mapping[str, str]] | None


@dataclass(frozen=True)
class Message:
    """A received request and its answer."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    answer: Answer

    @property
    def content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.body)
        return content

    @property
    def id(self) -> str:
        identifier: str = self.content["data"]["inspection_id"]
        return identifier


def accept(_: int, __: bytes) -> Answer:
    return 204, {}


@dataclass
class Receiver:
    """A receiver on a port of its own.

    Attributes:
        answer: what to say, from the number of requests before and the body.
        seconds: that every answer takes.
        body: of every answer.
        connections: that were made so far.
    """

    answer: Callable[[int, bytes], Answer] = accept
    seconds: float = 0.0
    body: bytes = b""
    connections: int = 0
    messages: list[Message] = field(default_factory=list)
    port: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        if not self.port:
            holder, self.port = reserved_port()
            weakref.finalize(self, holder.close)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def accepted(self) -> list[Message]:
        return [message for message in self.messages if message.answer and message.answer[0] < 300]

    def start(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                with receiver._lock:
                    receiver.connections += 1

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = self.rfile.read(length)
                if len(body) < length:  # a sender that was killed over it
                    self.close_connection = True
                    return
                time.sleep(receiver.seconds)
                with receiver._lock:
                    answer = receiver.answer(len(receiver.messages), body)
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    receiver.messages.append(Message(self.path, headers, body, answer))
                if answer is None:
                    self.close_connection = True
                    return
                self.send_response(answer[0])
                for name, value in answer[1].items():
                    self.send_header(name, value)
                body = b"" if answer[0] == 204 else receiver.body  # which has none
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        class Server(ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Ignore clients that disconnected."""

        self._server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
