import asyncio
import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from app.inspection import image_pipeline
from app.inspection import predict_request as predict
from app.inspection.explanation import Explanation, explain
from app.main import create_app
from app.scheduling.thread_pool import FairThreadPool
from app.settings import Settings
from flows.fastflow.bundle import models_folder
from flows.fastflow.inference.scorer import Scorer
from tests.app.support.backbone_gate import BackboneGate
from tests.app.support.bundles import copy_version
from tests.conftest import picture, png
from tests.support.waiting import eventually

Images = dict[str, list[bytes]]
PREDICT = "/v1/models/tiny/predict"


class Service:
    """A service with the categories tiny, big and small; requests run in threads."""

    def __init__(self, app: FastAPI, url: str, pool: ThreadPoolExecutor) -> None:
        self.app = app
        self.url = url
        self._pool = pool

    def post(self, category: str, *images: bytes, query: str = "", **headers: str) -> httpx.Response:
        """Post an image to predict, or several to predict:batch."""
        path = f"{self.url}/v1/models/{category}/predict"
        body: dict[str, Any] = {"content": images[0]}
        if len(images) > 1:
            path += ":batch"
            body = {"files": [("file", image) for image in images]}
        return httpx.post(path + query, headers=headers, timeout=60, trust_env=False, **body)

    def start(
        self, category: str, *images: bytes, query: str = "", **headers: str
    ) -> "Future[httpx.Response]":
        return self._pool.submit(self.post, category, *images, query=query, **headers)

    def get(self, path: str) -> Any:
        return httpx.get(self.url + path, timeout=60, trust_env=False)

    def connect(self) -> socket.socket:
        url = httpx.URL(self.url)
        return socket.create_connection((url.host, url.port or 80), timeout=60)

    @property
    def held(self) -> tuple[int, int]:
        """Return the images and bytes held for requests."""
        return self.app.state.admission.images, self.app.state.admission.bytes

    @property
    def pending(self) -> int:
        pending: int = self.app.state.batcher.pending
        return pending


Serve = Callable[..., AbstractContextManager[Service]]


@pytest.fixture
def serve(store: Path, serve_http: Callable[[FastAPI], AbstractContextManager[str]]) -> Serve:
    """Start a service with all models loaded."""
    for category in ("big", "small"):
        copy_version(store, "v1", category)
        models_folder.activate(store, category, "v1")

    @contextmanager
    def begin(**settings: Any) -> Iterator[Service]:
        app = create_app(Settings(models=store, **settings))
        with serve_http(app) as url, ThreadPoolExecutor(32) as pool:
            service = Service(app, url, pool)
            eventually(lambda: bool(service.get("/health/ready").is_success))
            yield service

    return begin


@contextmanager
def closed_gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[BackboneGate]:
    """A gate before the loaded models; it opens at the end."""
    gate = BackboneGate(monkeypatch)
    try:
        yield gate
    finally:
        gate.open()


def head(length: int, path: str = PREDICT, **headers: str) -> bytes:
    """Return the head of a request; the body follows."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def expect_refusal(response: httpx.Response, words: str) -> None:
    assert (response.status_code, response.json()["type"]) == (503, "queue-full"), response.text
    assert words in response.json()["detail"]
    assert int(response.headers["Retry-After"]) >= 1


def statuses(response: httpx.Response) -> list[int]:
    assert response.status_code == 200, response.text
    return sorted(item["status"] for item in response.json()["items"])


def test_small_category_is_answered_beside_a_busy_one(
    serve: Serve, tiny_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny_images["good"][0]
    with serve(queue_images=6, max_items=4) as service, closed_gate(monkeypatch) as gate:
        big = [service.start("big" if i % 2 else "big/versions/v1", data) for i in range(4)]
        eventually(lambda: service.held[0] == 4)
        expect_refusal(service.post("big", data), "4 images are waiting for this category, its share")
        small = [service.start("small", data) for _ in range(2)]
        eventually(lambda: service.held[0] == 6)
        expect_refusal(service.post("tiny", data), "6 images are waiting, the limit is 6")
        gate.open()
        assert [future.result().status_code for future in big + small] == [200] * 6
        eventually(lambda: service.held == (0, 0))
        assert service.post("unknown", data).status_code == 404
        assert not service.app.state.admission.images_held


def test_categories_take_turns_at_drawing(
    serve: Serve, tiny_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, release, drawn = tiny_images["good"][0], threading.Event(), list[tuple[int, int]]()
    pools: list[FairThreadPool] = []
    run = FairThreadPool.run

    def held(score_map: Any, scale: Any, size: tuple[int, int], *args: Any) -> Explanation:
        drawn.append(size)
        assert release.wait(60)
        return explain(score_map, scale, size, *args)

    def noting(pool: FairThreadPool, lane: str, function: Callable[[], Any]) -> Any:
        pools.append(pool)
        return run(pool, lane, function)

    other = png(picture(1)[:60])
    with serve(decode_threads=1) as service:
        monkeypatch.setattr(image_pipeline, "explain", held)
        monkeypatch.setattr(FairThreadPool, "run", noting)
        sent = [service.start("big", data, Accept="image/png")]
        eventually(lambda: len(drawn) == 1)
        _, drawing = pools
        sent += [service.start("big", data, Accept="image/png") for _ in range(3)]
        eventually(lambda: len(drawing) == 3)
        sent.append(service.start("small", other, Accept="image/png"))
        eventually(lambda: len(drawing) == 4)
        release.set()
        assert [future.result().status_code for future in sent] == [200] * 5
    assert drawn.index((60, 64)) == 1


def test_quiet_category_is_not_refused_for_a_busy_one(
    serve: Serve, tiny_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny_images["good"][0]
    with serve(max_batch=2) as service, closed_gate(monkeypatch) as gate:
        first = service.start("big", data)
        assert gate.entered.acquire(timeout=30)
        time.sleep(0.5)  # how long an image takes
        gate.let_one_through()
        assert first.result().status_code == 200
        queue = [service.start("big", data, query="?timeout_ms=120000") for _ in range(20)]
        eventually(lambda: service.pending == 20)
        # Twice 20 x 0.5 s for the big one; twice about 1 s for the small one.
        within = "?timeout_ms=12000"
        expect_refusal(service.post("big", data, query=within), "An answer would take about")
        expect_refusal(service.post("small", *[data] * 16, query=within), "An answer would take about")
        assert service.held[0] == 20
        small = service.start("small", data, query=within)
        eventually(lambda: service.pending == 21)
        gate.open()
        assert [future.result().status_code for future in (small, *queue)] == [200] * 21


def test_queue_full_of_bytes_refuses(
    serve: Serve, tiny_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny_images["good"][0]
    decoded = 64 * 64 * 3
    limits = {"max_bytes": len(data), "max_pixels": 64 * 64, "queue_bytes": 2 * (len(data) + decoded) - 1}
    with serve(**limits) as service, closed_gate(monkeypatch) as gate:
        accepted = service.start("tiny", data)
        eventually(lambda: service.pending == 1)
        refused = service.post("tiny", data)
        assert (refused.status_code, refused.json()["type"]) == (503, "queue-full")
        gate.open()
        assert accepted.result().status_code == 200
        assert service.post("tiny", data).status_code == 200


def test_late_image_is_answered_and_not_computed(
    serve: Serve, tiny_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny_images["good"][0]
    with serve() as service, closed_gate(monkeypatch) as gate:
        running = service.start("tiny", data)
        eventually(lambda: service.pending == 1)
        response = service.post("tiny", data, query="?timeout_ms=1000")
        assert (response.status_code, response.json()["type"]) == (504, "deadline-exceeded")
        assert "1000 ms" in response.json()["detail"]
        assert service.held[0] == 1
        gate.open()
        assert running.result().status_code == 200
        assert service.app.state.batcher.passes == 1


def test_deadline_also_ends_a_slow_upload(serve: Serve) -> None:
    with serve() as service, service.connect() as connection:
        connection.sendall(head(100_000, f"{PREDICT}?timeout_ms=200"))
        while not select.select([connection], [], [], 0.05)[0]:  # until there is an answer
            connection.sendall(b"\x89PNG")
        answer = HTTPResponse(connection)
        answer.begin()
        assert (answer.status, json.loads(answer.read())["type"]) == (504, "deadline-exceeded")


def test_answer_is_counted_until_it_is_sent(serve: Serve) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3000, 3000, 3), np.uint8)
    data = cv2.imencode(".png", noise)[1].tobytes()
    with serve(max_bytes=len(data)) as service, service.connect() as connection:
        connection.sendall(head(len(data), Accept="image/png") + data)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        images_held, bytes_held = service.held
        assert images_held == 0
        assert bytes_held == pytest.approx(len(data), rel=0.1)  # the overlay of noise is as large
        while service.held != (0, 0):
            connection.recv(2**20)


def test_image_of_disconnected_client_is_not_computed(
    serve: Serve, tiny_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny_images["good"][0]

    async def leave(service: Service) -> None:
        async with httpx.AsyncClient(base_url=service.url, timeout=60, trust_env=False) as client:
            request = asyncio.create_task(client.post(PREDICT, content=data))
            while service.pending < 2:
                await asyncio.sleep(0.005)
            request.cancel()

    with serve() as service, closed_gate(monkeypatch) as gate:
        running = service.start("tiny", data)
        eventually(lambda: service.pending == 1)
        asyncio.run(leave(service))
        eventually(lambda: service.pending == 1 and service.held[0] == 1)
        gate.open()
        assert running.result().status_code == 200
        assert service.app.state.batcher.passes == 1


class TestSeveral:
    def test_late_images_of_a_batch_fail_alone(
        self, serve: Serve, tiny_images: Images, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Five seconds for the first image, and five for putting together what was answered.
        monkeypatch.setattr(predict, "_RESPONSE_SHARE", 0.5)
        with serve(max_batch=1) as service, closed_gate(monkeypatch) as gate:
            future = service.start("tiny", *tiny_images["good"][:3], query="?timeout_ms=10000")
            assert gate.entered.acquire(timeout=30)
            gate.let_one_through()
            response = future.result()
            assert statuses(response) == [200, 504, 504]
            assert response.json()["decision"] in (None, "REJECT")
            for item in response.json()["items"]:
                if item["status"] == 504:
                    assert item["problem"]["type"] == "deadline-exceeded"
                    assert "10000 ms" in item["problem"]["detail"]
                else:
                    assert service.get(item["inspection"]["links"]["inspection"]).status_code == 200
            gate.open()
            eventually(lambda: service.held == (0, 0) and service.pending == 0)
            # The first one, and the one that was being computed when its time was over.
            assert service.app.state.batcher.passes == 2

    def test_error_of_one_image_keeps_other_answers(
        self,
        serve: Serve,
        tiny_images: Images,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        score, calls = Scorer.score_features, 0

        def failing(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise ValueError("a score must be finite; got nan in /usr/lib/secret.so")
            return score(*args)

        with serve(max_batch=1) as service:
            monkeypatch.setattr(Scorer, "score_features", failing)
            response = service.post("tiny", *tiny_images["good"][:4], query="?part_id=P")
            assert statuses(response) == [200, 200, 200, 500]
            [failed] = [item for item in response.json()["items"] if item["status"] == 500]
            assert failed["problem"]["type"] == "internal"
            assert failed["problem"]["request_id"] == response.headers["X-Request-ID"]
            assert "secret" not in response.text
            assert "secret" in caplog.text
            assert sum(service.get("/v1/parts/P").json()["images"].values()) == 3
            # The request's status is 200; monitoring hears of the fault all the same.
            assert 'flowgauge_problems_total{type="internal"} 1.0' in service.get("/metrics").text


class TestFullHistory:
    def test_full_history_refuses_before_the_upload_is_read(self, serve: Serve) -> None:
        with serve(journal_bytes=1000) as service:
            url = httpx.URL(service.url)
            connection = HTTPConnection(url.host, url.port, timeout=30)
            with closing(connection):
                connection.putrequest("POST", "/v1/models/tiny/predict")
                connection.putheader("Content-Length", "1001")
                connection.endheaders()  # and not a byte of the image
                answer = connection.getresponse()
                problem = json.loads(answer.read())
            assert (answer.status, problem["type"]) == (503, "history-unavailable")
            assert "Nothing was inspected" in problem["detail"]
            assert answer.headers["Retry-After"] == "5"

    def test_full_history_still_answers_without_storing(self, serve: Serve, tiny_images: Images) -> None:
        data = tiny_images["good"][0]
        with serve() as service:
            first = service.post("tiny", data, **{"Idempotency-Key": "k"})
        with serve(journal_bytes=1) as service:
            for several in ([data], [data, data]):
                refused = service.post("tiny", *several)
                assert (refused.status_code, refused.json()["type"]) == (503, "history-unavailable")
                assert service.post("tiny", *several, query="?store=false").status_code == 200
            again = service.post("tiny", data, **{"Idempotency-Key": "k"})
            assert (again.status_code, again.json()) == (200, first.json())
            assert service.post("tiny", data, **{"Idempotency-Key": "other"}).status_code == 503
