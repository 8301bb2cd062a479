"""The uvicorn server of `flowgauge serve`, with a graceful stop."""

import asyncio
import os
import socket
from collections.abc import Callable
from functools import partial
from types import FrameType

import uvicorn
from fastapi import FastAPI

from app.scheduling.draining import Draining


class Server(uvicorn.Server):
    """A server that stops in steps at the first SIGTERM or SIGINT, and at once at the second.

    First the service drains: it is not ready, refuses new predictions, and asks clients to close their
    connections. After `drain_seconds`, in which a load balancer notices, the port closes. Accepted requests
    then finish, within `timeout_graceful_shutdown` of the configuration. A lost device also stops the server.

    Args:
        config: uvicorn's. Its lifespan must be off: `run_app` runs it.
        draining: the state to set at the signal.
        drain_seconds: between the signal and the closing of the port.
        is_lost: returns True if the device failed; called ten times a second.
    """

    def __init__(
        self, config: uvicorn.Config, draining: Draining, drain_seconds: float, is_lost: Callable[[], bool]
    ) -> None:
        super().__init__(config)
        self._draining = draining
        self._drain_seconds = drain_seconds
        self._is_lost = is_lost

    async def run_app(self, app: FastAPI, listener: socket.socket) -> None:
        """Start the service, serve it on a listening socket until a stop, and close it."""
        with self.capture_signals():
            async with app.router.lifespan_context(app):
                await self.serve(sockets=[listener])

    async def on_tick(self, counter: int) -> bool:
        """Also stop if the device is lost: a service manager can start a new process."""
        return await super().on_tick(counter) or self._is_lost()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port, end endless responses, and wait for the others."""
        for end in self._draining.at_end:
            end()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start to stop; at the second signal, exit at once, which the history survives."""
        del frame
        if self._draining.begun:
            os._exit(128 + sig)  # the exit code of a shell for a signal
        self._draining.begun = True
        if self.started and self._drain_seconds:
            # A signal handler may interrupt any code; call_soon_threadsafe is safe in it.
            loop = asyncio.get_running_loop()
            close_port = partial(setattr, self, "should_exit", True)
            loop.call_soon_threadsafe(loop.call_later, self._drain_seconds, close_port)
        else:
            self.should_exit = True
