"""One replica: the service of `create_app`, on a node of a Ray cluster."""

import asyncio
import itertools
import time
from pathlib import Path
from typing import Final

import torch
from filelock import FileLock, Timeout
from starlette.datastructures import State
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.cluster.requirements import require_shareable
from app.errors.problems import Problem
from app.main import create_app
from app.settings import load_settings
from app.telemetry import logs

_MODELS: Final = 256  # that a replica reports; what it holds is bounded by memory
_READY_SECONDS: Final = 120


class Replica:
    """Base of the deployment, with the health check of Ray."""

    app: "Service"

    async def check_health(self) -> None:
        """Raise if the device is lost: Ray starts another replica."""
        if (lost := self.app.state.batcher.lost) is not None:
            raise RuntimeError(lost)


def build_app() -> "Service":
    """Build the service of this replica, from the settings in its environment.

    Raises:
        ClusterError, ExposureError: as `require_shareable`.
    """
    settings = load_settings()
    require_shareable(settings)
    logs.configure(settings.log_format)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    folder, lock = take_folder(settings.history)
    # What servers with a store do not share: the spool, and the copy of the models.
    own = {"history": folder / "history", "models": folder / "models"}
    own["models"].mkdir(exist_ok=True)
    app = create_app(settings.model_copy(update=own))
    app.state.folder_lock = lock
    # As uvicorn does for `flowgauge serve`.
    inner = ProxyHeadersMiddleware(app, settings.trusted_proxies.strip(" ,"))  # type: ignore[arg-type]
    return Service(inner, app.state)  # type: ignore[arg-type]


def take_folder(parent: Path) -> tuple[Path, FileLock]:
    """Lock the first free folder of a node's replicas, so that the spool of a dead one is filed."""
    for number in itertools.count():
        folder = parent / f"replica-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "replica.lock", thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        return folder, lock
    raise AssertionError


class Service:
    """ASGI application that starts when models are loaded, and reports to Ray what it serves."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        from ray import serve

        async def report(category: str) -> str:
            return category

        self.app = app
        self.state = state
        self._report = serve.multiplexed(max_num_models_per_replica=_MODELS)(report)
        self._category = serve.get_multiplexed_model_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        served = False

        async def note(message: Message) -> None:
            nonlocal served
            if message["type"] == "lifespan.startup.complete":
                await self._wait_until_ready()
            served = served or message.get("status") == 200
            await send(message)

        await self.app(scope, receive, note)
        if served and (category := self._category()):
            await self._report(category)

    async def _wait_until_ready(self) -> None:
        """Wait for the models as /health/ready does, but not for ever for one that cannot load."""
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            try:
                self.state.loaded_models.require_ready()
            except Problem:
                await asyncio.sleep(0.1)
            else:
                return
