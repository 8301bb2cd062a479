"""Tests of routes against two servers: `pytest --two-servers` puts two where a test creates one.

They share a PostgreSQL database and an S3 store, and take requests in turns, as behind a proxy. A change on
one takes effect on the other within two seconds. Tests do not wait for that: both look for changes before and
after each request.
"""

import asyncio
import hashlib
import itertools
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from app import main
from app.settings import Settings
from app.storage import fsspec_store
from tests.support import s3
from tests.support.postgres import Postgres

_create_app = main.create_app
# Within this time a change has to take effect on every server.
_EFFECT_SECONDS = 2.0
_REQUESTS = "flowgauge_requests_total"


@contextmanager
def installed(postgres: Postgres, s3_server: s3.S3Server) -> Iterator[None]:
    """Create pairs of servers in all modules that have been imported, until the end of the block."""
    with ExitStack() as databases, pytest.MonkeyPatch.context() as patch:
        for name, value in (s3.ENVIRONMENT | {"AWS_ENDPOINT_URL": s3_server.url}).items():
            patch.setenv(name, value)
        patch.setattr(fsspec_store, "_WRITE_SECONDS", 60)  # a busy machine's
        pairs = _Pairs(postgres, databases, s3_server.make_bucket())
        for module in list(sys.modules.values()):
            if vars(module).get("create_app") is _create_app:
                patch.setattr(module, "create_app", pairs.create)
        # A history folder stands for its database, also where a test opens it without a server.
        patch.setattr(Settings, "database_url", property(pairs.database_url))
        patch.setattr(Settings, "has_database", property(lambda _: True))
        yield


class _Pairs:
    """Makes pairs of servers; those of one history folder are the same pair, started again."""

    def __init__(self, postgres: Postgres, databases: ExitStack, bucket: str) -> None:
        self._postgres = postgres
        self._databases = databases
        self._bucket = bucket
        self._urls: dict[Path, str] = {}

    def database_url(self, settings: Settings) -> str:
        """Return the URL of a PostgreSQL database for a history folder."""
        if settings.database is not None:
            return settings.database
        folder = settings.history.absolute()
        if folder not in self._urls:
            self._urls[folder] = self._databases.enter_context(self._postgres.database())
        return self._urls[folder]

    def create(self, settings: Settings) -> FastAPI:
        """Create a service that passes every second request on to another one beside it."""
        if settings.database is not None:  # a test with servers of its own
            return _create_app(settings)
        name = hashlib.sha256(str(settings.history.absolute()).encode()).hexdigest()[:16]
        shared = {"database": self.database_url(settings), "store": f"s3://{self._bucket}/{name}"}
        models = settings.models
        if models.parent != settings.history.parent:  # others' models, which are left as they are
            models = settings.history.with_name("models")
            if not models.exists():
                shutil.copytree(settings.models, models)
        history = settings.history.with_name(f"{settings.history.name}-2")
        copy = history.with_name(f"{history.name}-models")
        copy.mkdir(parents=True, exist_ok=True)
        first = _create_app(settings.model_copy(update={"models": models, **shared}))
        second = _create_app(settings.model_copy(update={"history": history, "models": copy, **shared}))
        lifespan = first.router.lifespan_context

        @asynccontextmanager
        async def both(app: FastAPI) -> AsyncIterator[None]:
            async with lifespan(app), second.router.lifespan_context(second):
                yield
            _require_turns(first, second)

        first.router.lifespan_context = both
        first.add_middleware(_Alternation, servers=(first, second))
        first.state.beside = second
        return first


class _Alternation:
    def __init__(self, app: ASGIApp, servers: tuple[FastAPI, FastAPI]) -> None:
        self._app = app
        self._servers = servers
        self._targets: Iterator[ASGIApp] = itertools.cycle((app, servers[1]))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        await self._deliver()
        await next(self._targets)(scope, receive, send)
        await self._deliver()

    async def _deliver(self) -> None:
        """Let both servers follow the other's changes, until what is active has been loaded."""
        for server in self._servers:
            await asyncio.to_thread(server.state.notifications._call)
            models = server.state.loaded_models
            for category in list(models._serving):
                await models._follow(category, preload=False)
            if loads := list(models._loading.values()):
                await asyncio.wait(loads, timeout=_EFFECT_SECONDS)


def answered(server: FastAPI) -> int:
    """Return how many requests a server has answered, by its own counter."""
    families = server.state.telemetry.registry.collect()
    return int(sum(s.value for family in families for s in family.samples if s.name == _REQUESTS))


def _require_turns(*servers: FastAPI) -> None:
    counts = [answered(server) for server in servers]
    assert min(counts) or max(counts) < 2, f"the servers answered {counts} requests"
