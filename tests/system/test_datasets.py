"""Datasets of a real server: `kill -9` during uploads loses no answered image and leaves no other file."""

import random
import sqlite3
import threading
import time
from itertools import count
from pathlib import Path

import httpx
import pytest

from tests.conftest import picture, png
from tests.support.server import Server

PATH = "/v1/products/part/images"


class Uploads:
    """Clients that add images, and delete some, until the server is gone."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._numbers = count()
        self.answered: set[str] = set()

    def run(self, seconds: float) -> None:
        threads = [threading.Thread(target=self._send) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        self._server.kill()
        for thread in threads:
            thread.join()

    def _send(self) -> None:
        with self._server.client() as client:
            try:
                while True:
                    files = [("file", png(picture(next(self._numbers)))) for _ in range(3)]
                    first, *others = client.post(PATH, files=files).json()["items"]
                    self.answered |= {item["image"]["sha256"] for item in others}
                    client.delete(first["image"]["links"]["self"])  # it may or may not be deleted
            except httpx.TransportError:
                return


def rows_and_files(server: Server) -> tuple[set[str], set[str]]:
    with sqlite3.connect(server.history / "history.sqlite") as database:
        rows = database.execute("SELECT sha256 || '.' || suffix FROM product_images").fetchall()
    return {name for (name,) in rows}, {path.name for path in (server.history / "products/part").iterdir()}


@pytest.mark.slow
def test_kills_at_ten_moments_lose_no_image(tmp_path: Path) -> None:
    draw = random.Random(46)
    (tmp_path / "models").mkdir()
    with Server(tmp_path / "models", tmp_path / "server") as server:
        with server.client() as client:
            client.post("/v1/products", json={"name": "part", "takeover": "manual"})
        uploads = Uploads(server)
        for _ in range(10):
            uploads.run(draw.uniform(0.2, 1.5))
            server.start()
            rows, files = rows_and_files(server)
            assert rows == files
            assert uploads.answered <= {name.partition(".")[0] for name in rows}
    assert len(uploads.answered) > 50
