"""What a predict request meets on a real connection: limits while it streams, queues, deadlines, leaving."""

import asyncio
import http.client
import io
import select
import socket
from collections.abc import Callable, Iterator
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

from app.main import create_app
from app.settings import Settings
from tests.app.gate import Gate
from tests.support.waiting import eventually

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


def png(image: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def test_image_in_chunks_without_a_length_is_answered(
    live_service: httpx.Client, tiny_images: Images
) -> None:
    data = tiny_images["good"][0]
    pieces = (data[i : i + 100] for i in range(0, len(data), 100))
    response = live_service.post(PREDICT, content=pieces, headers=RAW)
    assert response.request.headers["Transfer-Encoding"] == "chunked"
    whole = live_service.post(PREDICT, content=data, headers=RAW)
    assert response.json()["score"] == whole.json()["score"]


@pytest.mark.parametrize(
    "body",
    [
        {"content": bytes(200_001)},
        {"content": chunks(1_000_000)},
        {"content": b"x" * 20_000_000},  # the refusal must reach a client that still sends
        {"files": {"file": ("x", bytes(200_001))}},
        {"content": png(np.zeros((400, 400, 3), np.uint8))},
    ],
    ids=["declared", "undeclared", "goes on", "form", "pixels"],
)
def test_too_large_uploads_are_refused(live_service: httpx.Client, body: dict[str, Any]) -> None:
    headers = {} if "files" in body else RAW
    expect_problem(live_service.post(PREDICT, headers=headers, **body), 413, "too-large")


def connected(url: str) -> socket.socket:
    address = httpx.URL(url)
    return socket.create_connection((address.host, address.port or 80), timeout=60)


def head(length: int, path: str = PREDICT, **headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def raw_exchange(url: str, head: bytes, body: bytes, *, close: bool) -> bytes:
    with connected(url) as connection:
        connection.sendall(head + body)
        if close:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while b"\r\n\r\n" not in answer and (piece := connection.recv(65536)):
            answer += piece
        return answer


def test_length_that_promises_too_much_is_refused_before_a_byte_is_sent(live_service: httpx.Client) -> None:
    answer = raw_exchange(str(live_service.base_url), head(999_999_999_999), b"", close=False)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in answer


@pytest.mark.parametrize(("length", "close"), [(100_000, True), (1000, False)])
def test_length_that_does_not_hold_harms_nobody(
    live_service: httpx.Client, tiny_images: Images, length: int, close: bool
) -> None:
    """A client that leaves in the middle of its upload, or sends more than it said."""
    data = tiny_images["good"][0]
    answer = raw_exchange(str(live_service.base_url), head(length), data, close=close)
    assert close or answer.startswith(b"HTTP/1.1 4")
    assert live_service.post(PREDICT, content=data, headers=RAW).status_code == 200


class Blocked:
    """A service whose model thread waits with its batch until the gate is open, over real HTTP."""

    def __init__(self, app: FastAPI, url: str, gate: Gate) -> None:
        self.app = app
        self.url = url
        self.gate = gate

    def post(self, data: bytes, query: str = "") -> httpx.Response:
        with httpx.Client(base_url=self.url, timeout=60, trust_env=False) as client:
            return client.post(PREDICT + query, content=data, headers=RAW)

    @property
    def waiting(self) -> int:
        """Images that wait for the model."""
        pending: int = self.app.state.batcher.pending
        return pending

    @property
    def passes(self) -> int:
        """Passes of the backbone so far."""
        passes: int = self.app.state.batcher.passes
        return passes

    @property
    def held(self) -> tuple[int, int]:
        """Images and bytes that are held for requests."""
        admission = self.app.state.admission
        return admission.images, admission.bytes


Block = Callable[..., AbstractContextManager[Blocked]]


@pytest.fixture
def blocked(
    tiny_bundle_store: Path, serve_http: Serve, tiny_images: Images, monkeypatch: pytest.MonkeyPatch
) -> Block:
    @contextmanager
    def block(**settings: Any) -> Iterator[Blocked]:
        app = create_app(Settings(models=tiny_bundle_store, preload=False, **settings))
        with serve_http(app) as url, monkeypatch.context() as patch:
            client = httpx.Client(base_url=url, timeout=60, trust_env=False)
            with client:  # so that the model is loaded
                assert client.post(PREDICT, content=tiny_images["good"][0], headers=RAW).status_code == 200
            service = Blocked(app, url, Gate(patch))
            try:
                yield service
            finally:
                service.gate.open()

    return block


def test_full_queue_refuses_and_serves_those_in_it(blocked: Block, tiny_images: Images) -> None:
    data = tiny_images["good"][0]
    with blocked(queue_images=2, max_items=2) as service, ThreadPoolExecutor(2) as clients:
        accepted = [clients.submit(service.post, data) for _ in range(2)]
        eventually(lambda: service.waiting == 2)
        refused = service.post(data)
        expect_problem(refused, 503, "queue-full")
        assert int(refused.headers["Retry-After"]) >= 1
        assert httpx.get(f"{service.url}/health/live", timeout=60, trust_env=False).status_code == 200
        service.gate.open()
        assert [future.result().status_code for future in accepted] == [200, 200]
        assert service.post(data).status_code == 200
        eventually(lambda: service.held == (0, 0))


def test_queue_full_of_bytes_refuses(blocked: Block, tiny_images: Images) -> None:
    data = tiny_images["good"][0]
    decoded = 64 * 64 * 3
    limits = {"max_bytes": len(data), "max_pixels": 64 * 64, "queue_bytes": 2 * (len(data) + decoded) - 1}
    with blocked(**limits) as service, ThreadPoolExecutor(1) as clients:
        accepted = clients.submit(service.post, data)
        eventually(lambda: service.waiting == 1)
        expect_problem(service.post(data), 503, "queue-full")
        service.gate.open()
        assert accepted.result().status_code == 200
        assert service.post(data).status_code == 200


def test_passed_deadline_is_answered_and_not_computed(blocked: Block, tiny_images: Images) -> None:
    data = tiny_images["good"][0]
    with blocked() as service, ThreadPoolExecutor(1) as clients:
        running = clients.submit(service.post, data)
        eventually(lambda: service.waiting == 1)
        before = service.passes
        response = service.post(data, "?timeout_ms=1000")
        expect_problem(response, 504, "deadline-exceeded")
        assert "1000 ms" in response.json()["detail"]
        assert service.held[0] == 1
        service.gate.open()
        assert running.result().status_code == 200
        assert service.post(data).status_code == 200
        assert service.passes == before + 1


def test_deadline_also_ends_a_slow_upload(blocked: Block) -> None:
    with blocked() as service, connected(service.url) as connection:
        connection.sendall(head(100_000, f"{PREDICT}?timeout_ms=200"))
        while not select.select([connection], [], [], 0.05)[0]:  # until there is an answer
            connection.sendall(b"\x89PNG")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        response = httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())
    expect_problem(response, 504, "deadline-exceeded")


def test_stalled_upload_is_given_up_and_what_it_held_is_free(blocked: Block, tiny_images: Images) -> None:
    data = tiny_images["good"][0]
    with blocked(upload_idle_seconds=0.2) as service:
        answer = raw_exchange(service.url, head(len(data)), data[:-1], close=False)
        assert answer.startswith(b"HTTP/1.1 408 ")
        eventually(lambda: service.held == (0, 0))


def test_answer_is_counted_until_its_client_has_taken_it(blocked: Block) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3000, 3000, 3), np.uint8)
    data = cv2.imencode(".png", noise)[1].tobytes()
    with blocked(max_bytes=len(data)) as service:
        service.gate.open()
        with connected(service.url) as connection:
            connection.sendall(head(len(data), Accept="image/png") + data)
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
            images_held, bytes_held = service.held
            assert images_held == 0
            assert bytes_held == pytest.approx(len(data), rel=0.1)  # the overlay of noise is as large
            while service.held != (0, 0):
                connection.recv(2**20)


def test_image_whose_client_left_is_not_computed(blocked: Block, tiny_images: Images) -> None:
    data = tiny_images["good"][0]

    async def leave(service: Blocked) -> None:
        async with httpx.AsyncClient(base_url=service.url, timeout=60, trust_env=False) as client:
            request = asyncio.create_task(client.post(PREDICT, content=data, headers=RAW))
            while service.waiting < 2:
                await asyncio.sleep(0.005)
            request.cancel()

    with blocked() as service, ThreadPoolExecutor(1) as clients:
        running = clients.submit(service.post, data)
        eventually(lambda: service.waiting == 1)
        before = service.passes
        asyncio.run(leave(service))
        eventually(lambda: service.waiting == 1 and service.held[0] == 1)
        service.gate.open()
        assert running.result().status_code == 200
        assert service.passes == before


def test_bad_image_among_many_fails_alone(live_service: httpx.Client, tiny_images: Images) -> None:
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
    # To rounding: libraries compute convolutions of other numbers of images by other ways.
    assert scores == pytest.approx([scores[0]] * 15, rel=1e-6)
