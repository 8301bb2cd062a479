"""The server of `flowgauge serve`: uvicorn, with a stop that loses nothing."""

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
    """Stops in steps at the first SIGTERM or SIGINT, and at once at the second.

    First the service says that it is draining: it is not ready, refuses new predictions, and asks clients to
    close their connections. After `drain_seconds`, the time a load balancer takes to see it, the port is
    closed; then what was accepted is finished, for `timeout_graceful_shutdown` of the configuration at most.
    A device that is lost is a stop without a signal.

    Args:
        config: uvicorn's. Its lifespan must be off: `run_app` runs it.
        draining: told when it begins.
        drain_seconds: between the signal and the closing of the port.
        is_lost: whether the device computes no more; asked ten times a second.
    """

    def __init__(
        self, config: uvicorn.Config, draining: Draining, drain_seconds: float, is_lost: Callable[[], bool]
    ) -> None:
        super().__init__(config)
        self._draining = draining
        self._drain_seconds = drain_seconds
        self._is_lost = is_lost

    async def run_app(self, app: FastAPI, listener: socket.socket) -> None:
        """Start the service, serve it on a socket that listens, and stop it; raise what prevents that."""
        with self.capture_signals():
            async with app.router.lifespan_context(app):
                await self.serve(sockets=[listener])

    async def on_tick(self, counter: int) -> bool:
        """Stop where the device is lost, too: whoever started this process can start another one."""
        return await super().on_tick(counter) or self._is_lost()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port, and what would stay open for ever; then wait for the rest."""
        for end in self._draining.at_end:
            end()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; a second time, end: the history is made to survive that."""
        del frame
        if self._draining.begun:
            os._exit(128 + sig)  # as a shell says that a signal ended it
        self._draining.begun = True
        if self.started and self._drain_seconds:
            # A handler may run in the middle of anything, but the loop's own methods are made for it.
            loop = asyncio.get_running_loop()
            close_port = partial(setattr, self, "should_exit", True)
            loop.call_soon_threadsafe(loop.call_later, self._drain_seconds, close_port)
        else:
            self.should_exit = True
