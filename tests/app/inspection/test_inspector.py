"""What an inspection does not wait for."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings

PREDICT = "/v1/models/tiny/predict"
REGION = "/v1/models/tiny/region"
LEFT = {"image": {"width": 64, "height": 50}, "polygons": [[[0, 0], [40, 0], [40, 50], [0, 50]]]}
# All threads that asyncio has.
THREADS = 6


async def limit_asyncio() -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))


def test_hanging_database_holds_up_nothing_that_does_not_need_it(
    store: Path, tmp_path: Path, tiny_images: dict[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Look-ups of idempotency keys wait for it, in asyncio's threads; drawing a region's mask does not."""
    data = tiny_images["good"][0]
    app = create_app(Settings(models=store, history=tmp_path / "history"))
    asked, release = threading.Semaphore(0), threading.Event()
    with TestClient(app) as client, ThreadPoolExecutor(THREADS) as pool:
        assert client.portal is not None
        client.portal.call(limit_asyncio)
        assert client.post(f"{PREDICT}?store=false", content=data).status_code == 200
        response = client.put(REGION, json=LEFT)
        assert response.status_code == 200, response.text
        read = app.state.history.database.read

        @contextmanager
        def hanging() -> Iterator[Connection]:
            asked.release()
            assert release.wait(60)
            with read() as connection:
                yield connection

        monkeypatch.setattr(app.state.history.database, "read", hanging)

        def keyed(number: int) -> int:
            return client.post(PREDICT, content=data, headers={"Idempotency-Key": f"k{number}"}).status_code

        waiting = [pool.submit(keyed, number) for number in range(THREADS)]
        try:
            for _ in waiting:
                assert asked.acquire(timeout=30)
            answer = client.post(f"{PREDICT}?store=false&timeout_ms=10000", content=data)
            assert answer.status_code == 200, answer.text
            assert answer.json()["settings"]["region"] is not None
            assert not any(one.done() for one in waiting)
        finally:
            release.set()
        assert [one.result() for one in waiting] == [200] * THREADS
