"""The weight of pages is that of what really comes."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from app.main import create_app
from app.settings import Settings
from bench.page_weight import Visit, row, visit
from tests.app.conftest import Serve
from tests.app.conftest import serve_http as serve_http  # the fixture

if TYPE_CHECKING:
    from playwright.sync_api import Browser


class LatePictures:
    """A server whose pictures come long after the wall is live."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].endswith(".jpg"):
            await asyncio.sleep(1.5)
        await self._app(scope, receive, send)


def test_pages_and_pictures_are_weighed_apart(
    browser: "Browser",
    tiny_bundle_store: Path,
    tiny_images: dict[str, list[bytes]],
    serve_http: Serve,
    tmp_path: Path,
) -> None:
    app = create_app(Settings(models=tiny_bundle_store, history=tmp_path / "history"))
    app.add_middleware(LatePictures)
    with serve_http(app) as url, httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        empty = visit(browser, url, "/", slower=1)
        page = client.get("/", headers={"Accept-Encoding": "gzip"})
        transferred = int(page.headers.get("Content-Length", len(page.content)))
        assert transferred < empty.own < 500_000
        assert empty.pictures == 0
        assert 0 < empty.paint <= empty.ready
        answer = client.post("/v1/models/tiny/predict", content=tiny_images["defect"][0]).json()
        client.get(answer["links"]["inspection"]).raise_for_status()  # it is filed, and the wall has it
        full = visit(browser, url, "/", slower=1)
        assert full.pictures > 0
        assert abs(full.own - empty.own) < 10_000


def test_a_line_tells_medians() -> None:
    visits = [Visit(1000 * i, 0, 10 * i, 20 * i) for i in (1, 2, 9)]
    assert row("/", visits) == "| `/` | 2 | 0 | 20 | 40 |"
