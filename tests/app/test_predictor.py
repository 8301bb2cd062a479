"""What a predict request meets when there is too much, too little time, or a fault: over real HTTP."""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app import predictor
from app.inspection import Explained, Inspected
from app.main import create_app
from app.settings import Settings
from flows.fastflow import models_folder
from flows.fastflow.detector import Detector
from tests.app.gate import Gate
from tests.postgres import Postgres
from tests.waiting import eventually

Images = dict[str, list[bytes]]


class Service:
    """A service of the categories tiny, big and small; what is posted goes on in threads."""

    def __init__(self, app: FastAPI, url: str, pool: ThreadPoolExecutor) -> None:
        self.app = app
        self.url = url
        self._pool = pool

    def post(self, category: str, *images: bytes, query: str = "", **headers: str) -> httpx.Response:
        """Have an image inspected, or several by predict:batch."""
        path = f"{self.url}/v1/models/{category}/predict"
        body: dict[str, Any] = {"content": images[0]}
        if len(images) > 1:
            path += ":batch"
            body = {"files": [("file", image) for image in images]}
        return httpx.post(path + query, headers=headers, timeout=60, trust_env=False, **body)

    def start(
        self, category: str, *images: bytes, query: str = "", **headers: str
    ) -> "Future[httpx.Response]":
        """The same without waiting for the answer."""
        return self._pool.submit(self.post, category, *images, query=query, **headers)

    def get(self, path: str) -> Any:
        return httpx.get(self.url + path, timeout=60, trust_env=False)

    @property
    def held(self) -> tuple[int, int]:
        """Images and bytes on the account."""
        return self.app.state.admission.images, self.app.state.admission.bytes


Serve = Callable[..., AbstractContextManager[Service]]


@pytest.fixture
def serve(
    store: Path,
    add_version: Callable[[Path, str, str], Path],
    serve_http: Callable[[FastAPI], AbstractContextManager[str]],
) -> Serve:
    """Start a service, all models loaded."""
    for category in ("big", "small"):
        add_version(store, category, "v1")
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
def closed_gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A gate, made when the models are loaded: they are tried then. Open at the end, whatever happened."""
    gate = Gate(monkeypatch)
    try:
        yield gate
    finally:
        gate.open()


def expect_refusal(response: httpx.Response, words: str) -> None:
    assert (response.status_code, response.json()["type"]) == (503, "queue-full"), response.text
    assert words in response.json()["detail"]
    assert int(response.headers["Retry-After"]) >= 1


class TestShares:
    def test_a_small_category_is_answered_while_a_big_one_has_its_whole_share(
        self, serve: Serve, tiny_images: Images, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = tiny_images["good"][0]
        with serve(queue_images=6, max_items=4) as service, closed_gate(monkeypatch) as gate:
            big = [service.start("big", data) for _ in range(4)]
            eventually(lambda: service.held[0] == 4)
            expect_refusal(service.post("big", data), "4 images are waiting for this category, its share")
            small = [service.start("small", data) for _ in range(2)]
            eventually(lambda: service.held[0] == 6)
            expect_refusal(service.post("tiny", data), "6 images are waiting, the limit is 6")
            gate.open()
            assert [future.result().status_code for future in big + small] == [200] * 6
            eventually(lambda: service.held == (0, 0))
            assert not service.app.state.admission.images_held

    def test_a_small_category_is_drawn_before_what_waits_of_a_big_one(
        self, serve: Serve, tiny_images: Images, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data, release, drawn = tiny_images["good"][0], threading.Event(), list[str]()
        explain = Inspected.explain

        def held(inspected: Inspected, *args: Any) -> Explained:
            drawn.append(inspected.detector.manifest.category)
            assert release.wait(60)
            return explain(inspected, *args)

        monkeypatch.setattr(Inspected, "explain", held)
        with serve(decode_threads=1) as service:
            drawing = service.app.state.inspector._inference._drawing
            sent = [service.start("big", data, Accept="image/png")]
            eventually(lambda: len(drawn) == 1)
            sent += [service.start("big", data, Accept="image/png") for _ in range(3)]
            eventually(lambda: len(drawing) == 3)
            sent.append(service.start("small", data, Accept="image/png"))
            eventually(lambda: len(drawing) == 4)
            release.set()
            assert [future.result().status_code for future in sent] == [200] * 5
        assert drawn == ["big", "small", "big", "big", "big"]  # whose first has taken its time

    def test_a_named_version_takes_from_the_same_share(
        self, serve: Serve, tiny_images: Images, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = tiny_images["good"][0]
        with serve(queue_images=6, max_items=4) as service, closed_gate(monkeypatch):
            _ = [service.start("big/versions/v1", data) for _ in range(4)]
            eventually(lambda: service.held[0] == 4)
            expect_refusal(service.post("big", data), "its share")

    def test_a_request_of_as_many_images_as_may_wait_is_answered(
        self, serve: Serve, tiny_images: Images
    ) -> None:
        with serve(queue_images=4, max_items=4) as service:
            assert service.post("big", *tiny_images["good"][:4]).json()["items"][3]["status"] == 200

    def test_names_that_no_model_has_leave_nothing_behind(self, serve: Serve, tiny_images: Images) -> None:
        with serve() as service:
            for i in range(20):
                assert service.post(f"made-up-{i}", tiny_images["good"][0]).status_code == 404
            admission = service.app.state.admission
            assert (dict(admission.images_held), dict(admission.bytes_held)) == ({}, {})


class TestTime:
    @contextmanager
    def slow(
        self, serve: Serve, data: bytes, monkeypatch: pytest.MonkeyPatch, seconds: float = 0.1
    ) -> Iterator[tuple[Service, Gate]]:
        """A service that has seen an image take so long, and is computing the next one of big."""
        with serve(max_batch=2) as service, closed_gate(monkeypatch) as gate:
            first = service.start("big", data)
            assert gate.entered.acquire(timeout=30)
            time.sleep(seconds)
            gate.let_one_through()
            assert first.result().status_code == 200
            eventually(lambda: service.held[0] == 0)
            running = service.start("big", data)
            assert gate.entered.acquire(timeout=30)
            yield service, gate
            gate.open()
            assert running.result().status_code == 200

    @staticmethod
    def _settled(service: Service) -> bool:
        before = service.app.state.batcher.expected_wait()
        time.sleep(0.05)
        return bool(service.app.state.batcher.expected_wait() == before)

    def test_who_sends_little_is_not_refused_for_the_long_line_of_another(
        self, serve: Serve, tiny_images: Images, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = tiny_images["good"][0]
        with self.slow(serve, data, monkeypatch) as (service, gate):
            line = [service.start("big", data, query="?timeout_ms=60000") for _ in range(12)]
            eventually(lambda: service.app.state.batcher.pending == 13)
            # The batch that hangs lets estimates fall while it may be on time, then grow up to a bound.
            eventually(lambda: self._settled(service))
            # Between what the two would wait.
            waits = [service.app.state.batcher.expected_wait(1, name) for name in ("big", "small")]
            between = f"?timeout_ms={round(2000 * math.sqrt(math.prod(waits)))}"
            expect_refusal(service.post("big", data, query=between), "An answer would take about")
            small = service.start("small", data, query=between)
            eventually(lambda: service.app.state.batcher.pending == 14)
            gate.open()
            assert [future.result().status_code for future in (small, *line)] == [200] * 13

    def test_several_images_are_counted_when_they_have_arrived(
        self, serve: Serve, tiny_images: Images, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = tiny_images["good"][0]
        # Twelve would take twice 6 s at least, and have 10 s to arrive before their time is up.
        with self.slow(serve, data, monkeypatch, seconds=0.5) as (service, gate):
            refused = service.post("big", *[data] * 12, query="?timeout_ms=10000")
            expect_refusal(refused, "An answer would take about")
            assert service.app.state.batcher.pending == 1
            assert service.held[0] == 1
            two = service.start("big", *[data] * 2, query="?timeout_ms=60000")
            eventually(lambda: service.app.state.batcher.pending == 3)
            gate.open()
            assert two.result().status_code == 200


def statuses(response: httpx.Response) -> list[int]:
    assert response.status_code == 200, response.text
    return sorted(item["status"] for item in response.json()["items"])


class TestSeveral:
    def test_what_is_done_by_the_deadline_is_answered_and_the_rest_is_not_computed(
        self, serve: Serve, tiny_images: Images, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Five seconds for the first image, and five for putting together what was answered.
        monkeypatch.setattr(predictor, "_TO_ANSWER", 0.5)
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
            eventually(lambda: service.held == (0, 0))
            eventually(lambda: service.app.state.batcher.pending == 0)
            # The first one, and the one that was being computed when its time was over.
            assert service.app.state.batcher.images == 2

    def test_nothing_done_by_the_deadline_is_a_problem_of_the_whole(
        self, serve: Serve, tiny_images: Images, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with serve() as service, closed_gate(monkeypatch):
            response = service.post("tiny", *tiny_images["good"][:2], query="?timeout_ms=300")
            assert (response.status_code, response.json()["type"]) == (504, "deadline-exceeded")

    def test_a_fault_of_one_image_leaves_the_others_their_answers(
        self,
        serve: Serve,
        tiny_images: Images,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        features, calls = Detector.predict_features, 0

        def failing(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise ValueError("a score must be finite; got nan in /usr/lib/secret.so")
            return features(*args)

        with serve(max_batch=1) as service:
            monkeypatch.setattr(Detector, "predict_features", failing)
            response = service.post("tiny", *tiny_images["good"][:4], query="?part_id=P")
            assert statuses(response) == [200, 200, 200, 500]
            [failed] = [item for item in response.json()["items"] if item["status"] == 500]
            assert failed["problem"]["type"] == "internal"
            assert failed["problem"]["request_id"] == response.headers["X-Request-ID"]
            assert "secret" not in response.text
            assert "secret" in caplog.text
            ids = {item["inspection"]["inspection_id"] for item in response.json()["items"] if item != failed}
            assert service.get("/v1/parts/P").is_success  # it waits until all of them are filed
            kept = service.get("/v1/inspections?part_id=P").json()["inspections"]
            assert {one["inspection_id"] for one in kept} == ids
            # The request's status is 200; monitoring hears of the fault all the same.
            assert 'flowgauge_problems_total{type="internal"} 1.0' in service.get("/metrics").text

    def test_go_on_while_the_database_is_away(
        self, serve: Serve, tiny_images: Images, postgres: Postgres
    ) -> None:
        images = tiny_images["good"][:2]
        with postgres.database() as url, serve(database=url) as service:
            postgres.stop()
            try:
                first, again = (service.post("tiny", *images, **{"Idempotency-Key": "k"}) for _ in range(2))
            finally:
                postgres.start()
            assert statuses(first) == [200, 200]
            assert again.json() == first.json()
            ids = [item["inspection"]["inspection_id"] for item in first.json()["items"]]
            assert [service.get(f"/v1/inspections/{one}").status_code for one in ids] == [200, 200]


class TestFullHistory:
    def test_is_said_before_the_upload_is_read(self, serve: Serve) -> None:
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
            assert service.app.state.batcher.images == 0

    def test_does_not_keep_from_inspecting_without_keeping(self, serve: Serve, tiny_images: Images) -> None:
        images = tiny_images["good"][:2]
        with serve(journal_bytes=1) as service:
            for several in (images[:1], images):
                refused = service.post("tiny", *several)
                assert (refused.status_code, refused.json()["type"]) == (503, "history-unavailable")
                assert service.post("tiny", *several, query="?store=false").status_code == 200
            assert service.get("/health/ready").status_code == 200

    def test_does_not_keep_from_repeating_an_answer(self, serve: Serve, tiny_images: Images) -> None:
        data = tiny_images["good"][0]
        with serve() as service:
            first = service.post("tiny", data, **{"Idempotency-Key": "k"})
        with serve(journal_bytes=1) as service:
            again = service.post("tiny", data, **{"Idempotency-Key": "k"})
            assert (again.status_code, again.json()) == (200, first.json())
            assert service.post("tiny", data, **{"Idempotency-Key": "other"}).status_code == 503
