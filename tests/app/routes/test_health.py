import threading
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from flows.fastflow.detector import Detector
from tests.support.waiting import eventually


def wait_until_ready(client: TestClient) -> None:
    eventually(lambda: client.get("/health/ready").status_code == 200)


def test_becomes_ready(service: TestClient) -> None:
    wait_until_ready(service)
    assert service.get("/health/ready").json() == {"status": "ready"}
    assert [service.head(f"/health/{state}").status_code for state in ("live", "ready")] == [200, 200]


def test_lives_and_is_not_ready_while_models_load(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load, go_on = Detector.load, threading.Event()

    def slow(*args: object, **kwargs: object) -> Detector:
        go_on.wait()
        return load(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Detector, "load", slow)
    with TestClient(create_app(Settings(models=store))) as client:
        response = client.get("/health/ready")
        assert response.status_code == 503
        assert response.json()["type"] == "model-loading"
        assert int(response.headers["Retry-After"]) >= 1
        assert client.get("/health/live").status_code == 200
        assert client.get("/v1/models").status_code == 200
        go_on.set()
        wait_until_ready(client)


@pytest.mark.one_server("health is of one server")
def test_a_device_that_is_lost_asks_for_a_restart(store: Path) -> None:
    """As after some errors of CUDA: every load balancer and orchestrator is to know."""
    with TestClient(create_app(Settings(models=store))) as client:
        wait_until_ready(client)
        client.app.state.batcher.lost = "cuda:0 does not compute any more"  # type: ignore[attr-defined]
        answers = {
            path: client.get(path)
            for path in ("/health/ready", "/v2/health/ready", "/health/live", "/v2/health/live")
        }
    assert [answer.status_code for answer in answers.values()] == [503, 503, 500, 500]
    assert all("cuda:0 does not compute any more" in answer.text for answer in answers.values())
