"""What a predict request meets on a real connection: limits while it streams, queues, deadlines, leaving."""

import asyncio
import http.client
import io
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image

from app import batch, batcher
from app.main import create_app
from app.settings import Settings
from flows.fastflow.detector import Detector
from tests.waiting import eventually

Images = dict[str, list[bytes]]
Serve = Callable[[FastAPI], AbstractContextManager[str]]

PREDICT = "/v1/models/tiny/predict"
RAW = {"Content-Type": "image/png"}


def expect_problem(response: httpx.Response, status: int, name: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == name
    assert response.headers["X-Request-ID"] == response.json()["request_id"]


def chunks(size: int) -> Iterator[bytes]:
    for _ in range(size // 65536):
        yield b"\x89" * 65536


def test_an_image_in_chunks_without_length(live_service: httpx.Client, tiny_images: Images) -> None:
    data = tiny_images["good"][0]
    pieces = (data[i : i + 100] for i in range(0, len(data), 100))
    response = live_service.post(PREDICT, content=pieces, headers=RAW)
    assert response.request.headers["Transfer-Encoding"] == "chunked"
    assert response.status_code == 200
    whole = live_service.post(PREDICT, content=data, headers=RAW)
    assert response.json()["score"] == whole.json()["score"]


@pytest.mark.parametrize("path", [PREDICT, "/v1/models/bottel/predict", "/nothing"])
def test_answers_although_the_upload_goes_on(live_service: httpx.Client, path: str) -> None:
    """A refusal must reach a client that still sends, and not be lost to a reset connection."""
    response = live_service.post(path, content=b"x" * 20_000_000, headers=RAW)
    assert response.status_code in (404, 413)
    assert response.headers["content-type"] == "application/problem+json"


def test_too_many_bytes_declared(live_service: httpx.Client) -> None:
    expect_problem(live_service.post(PREDICT, content=bytes(200_001), headers=RAW), 413, "too-large")


def test_too_many_bytes_undeclared(live_service: httpx.Client) -> None:
    response = live_service.post(PREDICT, content=chunks(1_000_000), headers=RAW)
    expect_problem(response, 413, "too-large")


def test_too_many_bytes_in_a_form(live_service: httpx.Client) -> None:
    for size in (200_001, 5_000_000):
        response = live_service.post(PREDICT, files={"file": ("x", bytes(size))})
        expect_problem(response, 413, "too-large")


def resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096


def test_an_enormous_upload_takes_no_memory(live_service: httpx.Client) -> None:
    live_service.post(PREDICT, content=chunks(1_000_000), headers=RAW)
    before = resident_bytes()
    response = live_service.post(PREDICT, content=chunks(300_000_000), headers=RAW)
    expect_problem(response, 413, "too-large")
    assert resident_bytes() - before < 50_000_000


def test_too_many_pixels(live_service: httpx.Client) -> None:
    file = io.BytesIO()
    Image.fromarray(np.zeros((400, 400, 3), np.uint8)).save(file, "PNG")
    assert len(file.getvalue()) < 2000
    expect_problem(live_service.post(PREDICT, content=file.getvalue(), headers=RAW), 413, "too-large")


def connected(url: str) -> socket.socket:
    address = httpx.URL(url)
    return socket.create_connection((address.host, address.port or 80), timeout=60)


def raw_exchange(url: str, head: str, body: bytes, *, close: bool) -> bytes:
    with connected(url) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n" + body)
        if close:
            connection.shutdown(socket.SHUT_WR)
        connection.settimeout(60)
        answer = b""
        while b"\r\n\r\n" not in answer:
            piece = connection.recv(65536)
            if not piece:
                break
            answer += piece
        return answer


def test_a_length_that_promises_too_much_is_refused_before_a_byte_is_sent(live_service: httpx.Client) -> None:
    head = (
        f"POST {PREDICT} HTTP/1.1\nHost: 127.0.0.1\nContent-Type: image/png\nContent-Length: 999999999999\n"
    )
    answer = raw_exchange(str(live_service.base_url), head, b"", close=False)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in answer


def test_a_length_that_promises_more_than_comes(live_service: httpx.Client, tiny_images: Images) -> None:
    """The client leaves in the middle of its upload: nobody is answered and nothing breaks."""
    head = f"POST {PREDICT} HTTP/1.1\nHost: 127.0.0.1\nContent-Type: image/png\nContent-Length: 100000\n"
    raw_exchange(str(live_service.base_url), head, tiny_images["good"][0], close=True)
    response = live_service.post(PREDICT, content=tiny_images["good"][0], headers=RAW)
    assert response.status_code == 200


def test_a_length_that_promises_less_than_comes(live_service: httpx.Client, tiny_images: Images) -> None:
    data = tiny_images["good"][0]
    head = f"POST {PREDICT} HTTP/1.1\nHost: 127.0.0.1\nContent-Type: image/png\nContent-Length: 1000\n"
    answer = raw_exchange(str(live_service.base_url), head, data, close=False)
    assert answer.startswith(b"HTTP/1.1 4")
    assert live_service.post(PREDICT, content=data, headers=RAW).status_code == 200


class Blocked:
    """A service whose model thread waits with its batch until `release` is set, over real HTTP."""

    def __init__(self, app: FastAPI, url: str, release: threading.Event) -> None:
        self.app = app
        self.url = url
        self.release = release

    def post(self, data: bytes, query: str = "") -> httpx.Response:
        with httpx.Client(base_url=self.url, timeout=60, trust_env=False) as client:
            return client.post(PREDICT + query, content=data, headers=RAW)

    @property
    def waiting(self) -> int:
        """Images that wait for the model."""
        pending: int = self.app.state.batcher.pending
        return pending

    @property
    def held(self) -> tuple[int, int]:
        """Images and bytes on the account."""
        admission = self.app.state.admission
        return admission.images, admission.bytes


@pytest.fixture
def blocked(
    tiny_bundle_store: Path, serve_http: Serve, tiny_images: Images, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., AbstractContextManager[Blocked]]:
    release = threading.Event()
    compute = batch.compute

    def held(jobs: Iterable[batch.Job], outcome: batch.Outcome) -> None:
        release.wait()
        compute(jobs, outcome)

    monkeypatch.setattr(batcher, "compute", held)

    @contextmanager
    def block(**settings: Any) -> Iterator[Blocked]:
        app = create_app(Settings(models=tiny_bundle_store, preload=False, **settings))
        release.set()
        with serve_http(app) as url:
            service = Blocked(app, url, release)
            assert service.post(tiny_images["good"][0]).status_code == 200
            release.clear()
            try:
                yield service
            finally:
                service.release.set()

    return block


@pytest.fixture
def predicted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts what is really computed; the computing is the real one."""
    counted: list[int] = []
    predict = Detector.predict_features

    def counting(self: Detector, maps: Any, regions: Any, layouts: Any) -> Any:
        counted.append(len(regions))
        return predict(self, maps, regions, layouts)

    monkeypatch.setattr(Detector, "predict_features", counting)
    return counted


Block = Callable[..., AbstractContextManager[Blocked]]


def test_a_full_queue_refuses_and_serves_those_in_it(blocked: Block, tiny_images: Images) -> None:
    data = tiny_images["good"][0]
    with blocked(queue_images=2, max_items=2) as service, ThreadPoolExecutor(2) as clients:
        accepted = [clients.submit(service.post, data) for _ in range(2)]
        eventually(lambda: service.waiting == 2)
        refused = service.post(data)
        expect_problem(refused, 503, "queue-full")
        assert int(refused.headers["Retry-After"]) >= 1
        service.release.set()
        assert [future.result().status_code for future in accepted] == [200, 200]
        assert service.post(data).status_code == 200
        eventually(lambda: service.held == (0, 0))


def test_a_queue_full_of_bytes_refuses(blocked: Block, tiny_images: Images) -> None:
    data = tiny_images["good"][0]
    decoded = 64 * 64 * 3
    limits = {"max_bytes": len(data), "max_pixels": 64 * 64, "queue_bytes": 2 * (len(data) + decoded) - 1}
    with blocked(**limits) as service, ThreadPoolExecutor(1) as clients:
        accepted = clients.submit(service.post, data)
        eventually(lambda: service.waiting == 1)
        expect_problem(service.post(data), 503, "queue-full")
        service.release.set()
        assert accepted.result().status_code == 200
        assert service.post(data).status_code == 200


def test_a_passed_deadline_is_answered_and_not_computed(
    blocked: Block, tiny_images: Images, predicted: list[int]
) -> None:
    with blocked() as service:
        before = sum(predicted)
        start = time.monotonic()
        response = service.post(tiny_images["good"][0], "?timeout_ms=200")
        assert time.monotonic() - start < 5
        expect_problem(response, 504, "deadline-exceeded")
        assert "200 ms" in response.json()["detail"]
        assert service.held[0] == 0
        service.release.set()
        assert service.post(tiny_images["good"][0], "?timeout_ms=60000").status_code == 200
        assert sum(predicted) == before + 1


def test_a_deadline_also_ends_a_slow_upload(blocked: Block) -> None:
    path = f"{PREDICT}?timeout_ms=200"
    head = f"POST {path} HTTP/1.1\nHost: 127.0.0.1\nContent-Type: image/png\nContent-Length: 100000\n"
    with blocked() as service, connected(service.url) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n")
        while not select.select([connection], [], [], 0.05)[0]:  # until there is an answer
            connection.sendall(b"\x89PNG")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        response = httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())
    expect_problem(response, 504, "deadline-exceeded")


def test_a_stalled_upload_is_given_up_and_what_it_held_is_free(blocked: Block, tiny_images: Images) -> None:
    data = tiny_images["good"][0]
    head = f"POST {PREDICT} HTTP/1.1\nHost: 127.0.0.1\nContent-Type: image/png\nContent-Length: {len(data)}\n"
    with blocked(upload_idle_seconds=0.2) as service:
        answer = raw_exchange(service.url, head, data[:-1], close=False)
        assert answer.startswith(b"HTTP/1.1 408 ")
        eventually(lambda: service.held == (0, 0))


def test_an_answer_is_on_the_account_until_its_client_has_taken_it(blocked: Block) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3000, 3000, 3), np.uint8)
    data = cv2.imencode(".png", noise)[1].tobytes()
    head = f"POST {PREDICT} HTTP/1.1\nHost: 127.0.0.1\nAccept: image/png\nContent-Length: {len(data)}\n"
    with blocked(max_bytes=len(data)) as service:
        service.release.set()
        with connected(service.url) as connection:
            connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n" + data)
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
            images_held, bytes_held = service.held
            assert images_held == 0
            assert bytes_held == pytest.approx(len(data), rel=0.1)  # the overlay of noise is as large
            while service.held != (0, 0):
                connection.recv(2**20)


def test_an_image_whose_client_left_is_not_computed(
    blocked: Block, tiny_images: Images, predicted: list[int]
) -> None:
    async def leave(service: Blocked) -> None:
        async with httpx.AsyncClient(base_url=service.url, timeout=60, trust_env=False) as client:
            request = asyncio.create_task(client.post(PREDICT, content=tiny_images["good"][0], headers=RAW))
            while service.waiting < 1:
                await asyncio.sleep(0.005)
            request.cancel()

    with blocked() as service:
        before = sum(predicted)
        asyncio.run(leave(service))
        eventually(lambda: service.held[0] == 0)
        service.release.set()
        assert service.post(tiny_images["good"][0]).status_code == 200
        assert sum(predicted) == before + 1


def test_one_bad_image_among_many_fails_alone(live_service: httpx.Client, tiny_images: Images) -> None:
    good, bad = tiny_images["good"][0], tiny_images["good"][0][:500]
    with ThreadPoolExecutor(8) as clients:
        answers = list(
            clients.map(
                lambda data: live_service.post(PREDICT, content=data, headers=RAW),
                [good, bad, good, good] * 5,
            )
        )
    assert [answer.status_code for answer in answers] == [200, 422, 200, 200] * 5
    scores = [answer.json()["score"] for answer in answers if answer.status_code == 200]
    # To rounding: libraries compute convolutions of other numbers of pictures by other ways.
    assert scores == pytest.approx([scores[0]] * 15, rel=1e-6)


def test_health_is_answered_while_the_model_is_busy(blocked: Block, tiny_images: Images) -> None:
    with blocked() as service, ThreadPoolExecutor(1) as clients:
        accepted = clients.submit(service.post, tiny_images["good"][0])
        eventually(lambda: service.waiting == 1)
        took = []
        for _ in range(3):
            start = time.monotonic()
            assert httpx.get(f"{service.url}/health/live", timeout=60, trust_env=False).status_code == 200
            took.append(time.monotonic() - start)
        assert min(took) < 2  # one of them without a stall of this machine
        assert not accepted.done()
        service.release.set()
        assert accepted.result().status_code == 200
