"""A server of an app in the process of the tests."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn


@contextmanager
def running(config: uvicorn.Config, *, force: bool = False) -> Iterator[int]:
    """Run a server in a thread and yield its port; `force` does not wait for connections."""
    server = uvicorn.Server(config)
    # On asyncio's loop, as in `flowgauge serve`: uvicorn would take uvloop wherever Ray has installed it.
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        server.force_exit = force
        thread.join()
