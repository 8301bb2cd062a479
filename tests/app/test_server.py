"""Stop of a server process with a service of three routes."""

import http.client
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio, contextlib, socket, sys
import uvicorn
from fastapi import FastAPI
from app.errors import problem_responses
from app.web.page import error_page
from app.scheduling.draining import Draining
from app.middleware.request_context import RequestContext
from app.server import Server
from app.telemetry.metrics import Telemetry

drain_seconds, grace, start = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
draining = Draining()

async def stopping():
    while not draining.begun:
        await asyncio.sleep(0.01)

@contextlib.asynccontextmanager
async def lifespan(app):
    if start == "slow":
        print("starting", flush=True)
        await stopping()
    yield
    print("closed", flush=True)

app = FastAPI(lifespan=lifespan)
app.add_middleware(RequestContext, telemetry=Telemetry("0"), draining=draining)
problem_responses.install_handlers(app, error_page)

@app.get("/ready")
async def ready():
    draining.require_not_begun()

@app.get("/work/{seconds}")
async def work(seconds: float):
    draining.require_not_begun()
    print("began", flush=True)
    await asyncio.sleep(seconds)
    await stopping()
    return "done"

ended = asyncio.Event()
draining.at_end.append(ended.set)

@app.get("/endless")
async def endless():
    print("began", flush=True)
    await ended.wait()
    return "the end"

lost = []

@app.get("/lose")
async def lose():
    lost.append("the device")
    return "lost"

@app.get("/stuck")
async def stuck():
    print("began", flush=True)
    await asyncio.to_thread(__import__("time").sleep, 600)

listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
config = uvicorn.Config(app, lifespan="off", log_config=None, timeout_graceful_shutdown=grace)
server = Server(config, draining, drain_seconds, lambda: bool(lost))
asyncio.run(server.run_app(app, listener))
print("returned", flush=True)
"""


class Running:
    """A server process and its port."""

    def __init__(self, process: subprocess.Popen[str], connections: ExitStack) -> None:
        assert process.stdout is not None
        self.process = process
        self.said = process.stdout
        self.port = int(self.said.readline())
        self._connections = connections

    def ask(self, path: str) -> http.client.HTTPConnection:
        """Send a request without reading its response."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        self._connections.callback(connection.close)
        connection.request("GET", path)
        return connection

    def begin(self, path: str) -> http.client.HTTPConnection:
        """Send a request and wait until it is processed."""
        connection = self.ask(path)
        assert self.said.readline() == "began\n"
        return connection

    def end(self) -> list[str]:
        """Return the rest of its output after its end."""
        rest, _ = self.process.communicate(timeout=60)
        return rest.splitlines()


Start = Callable[..., AbstractContextManager[Running]]


@pytest.fixture
def start() -> Start:
    @contextmanager
    def begin(drain_seconds: float = 0, grace: int = 30, how: str = "at once") -> Iterator[Running]:
        command = [sys.executable, "-c", PROGRAM, str(drain_seconds), str(grace), how]
        with (
            ExitStack() as connections,
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process,
        ):
            try:
                yield Running(process, connections)
            finally:
                process.kill()

    return begin


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=60).close()
    except ConnectionError:
        return True
    return False


def is_draining(server: Running) -> bool:
    return server.ask("/ready").getresponse().status == 503


def test_lost_device_stops_the_server(start: Start) -> None:
    with start() as server:
        assert server.ask("/lose").getresponse().read() == b'"lost"'
        assert server.end() == ["closed", "returned"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_accepted_requests_finish_before_the_stop(start: Start, number: int) -> None:
    with start() as server:
        working = server.begin("/work/0")
        server.process.send_signal(number)
        response = working.getresponse()
        assert response.status == 200
        assert response.getheader("Connection") == "close"
        assert response.read() == b'"done"'
        assert server.end() == ["closed", "returned"]
        assert server.process.returncode == 0


def test_draining_server_refuses_work_before_the_port_closes(start: Start) -> None:
    with start(drain_seconds=3) as server:
        working = server.begin("/work/0")
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: is_draining(server))
        for path in ("/ready", "/work/0"):
            response = server.ask(path).getresponse()
            assert response.status == 503
            assert b'"draining"' in response.read()
            assert response.getheader("Connection") == "close"
        assert working.getresponse().status == 200
        assert server.end() == ["closed", "returned"]
        assert is_refused(server.port)


def test_endless_responses_end_when_the_port_closes(start: Start) -> None:
    with start(grace=600) as server:
        listening = server.begin("/endless")
        server.process.send_signal(signal.SIGTERM)
        assert listening.getresponse().read() == b'"the end"'
        assert server.end() == ["closed", "returned"]
        assert server.process.returncode == 0


def test_endless_work_is_abandoned(start: Start) -> None:
    with start(grace=1) as server:
        working = server.begin("/work/600")
        server.process.send_signal(signal.SIGTERM)
        assert server.end() == ["closed", "returned"]
        assert server.process.returncode == 0
        assert working.getresponse().status == 500


def test_second_signal_exits_at_once(start: Start) -> None:
    """Even in a thread, which cannot be cancelled like a task."""
    with start(grace=600) as server:
        server.begin("/stuck")
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: is_refused(server.port))
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=60) == 128 + signal.SIGTERM


def test_signal_during_the_start_is_not_lost(start: Start) -> None:
    with start(drain_seconds=600, how="slow") as server:
        assert server.said.readline() == "starting\n"
        server.process.send_signal(signal.SIGTERM)
        assert server.end() == ["closed", "returned"]
        assert server.process.returncode == 0
