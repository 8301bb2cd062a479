"""`flowgauge cluster serve`: replicas on a real Ray cluster, with PostgreSQL and a store."""

import itertools
import os
import shutil
import signal
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread

import httpx
import pytest

from tests.support.postgres import Postgres
from tests.support.waiting import eventually
from tests.system.ray_service import Deployed, deployed_on

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not installed"),
]


@pytest.fixture(scope="module")
def deployed(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, tiny_bundle_store: Path
) -> Iterator[Deployed]:
    root = tmp_path_factory.mktemp("deployed")
    models = shutil.copytree(tiny_bundle_store, root / "models")
    with postgres.database() as url, deployed_on(2, root, url, models) as service:
        yield service


def predict(client: httpx.Client, image: bytes, key: str) -> httpx.Response:
    files = {"file": ("part.png", image)}
    return client.post("/v1/models/tiny/predict", files=files, headers={"Idempotency-Key": key})


def test_keys_are_required(deployed: Deployed) -> None:
    response = httpx.get(f"{deployed.url}/v1/models")
    assert (response.status_code, response.json()["type"]) == (401, "unauthenticated")
    assert len(response.headers.get_list("X-Request-ID")) == 1


def test_killed_replicas_lose_nothing(deployed: Deployed, tiny_images: dict[str, list[bytes]]) -> None:
    """Each replica is killed once, while clients send; what dies was the one that served."""
    image, answered, refused = tiny_images["good"][0], list[str](), list[httpx.Response]()
    stop = Event()

    def send(number: int) -> None:
        with deployed.client() as client:
            for i in itertools.count():
                if stop.is_set():
                    return
                response = predict(client, image, f"{number}-{i}")
                if response.status_code == 200:
                    answered.append(response.json()["inspection_id"])
                else:
                    refused.append(response)
                    time.sleep(0.1)

    senders = [Thread(target=send, args=(number,)) for number in range(4)]
    for sender in senders:
        sender.start()
    for replica in deployed.replicas():
        before = len(answered)
        eventually(lambda before=before: len(answered) >= before + 20)  # type: ignore[misc]
        os.kill(replica, signal.SIGKILL)
        eventually(lambda dead=replica: dead not in deployed.replicas() and len(deployed.replicas()) == 2)  # type: ignore[misc]
    stop.set()
    for sender in senders:
        sender.join()
    for response in refused:
        assert response.headers["content-type"] == "application/problem+json", response.text
        assert response.json()["type"] in {"draining", "model-loading", "history-unavailable", "queue-full"}
    assert len(set(answered)) == len(answered)
    # Each new replica has taken the folder of a dead one, and files what that left.
    assert {path.name for path in deployed.history.iterdir()} == {"replica-0", "replica-1"}
    with deployed.client() as client:
        found = [client.get(f"/v1/inspections/{identifier}").status_code for identifier in answered]
    assert set(found) == {200}


def test_live_stream_shows_what_any_replica_answers(
    deployed: Deployed, tiny_images: dict[str, list[bytes]]
) -> None:
    with deployed.client() as client, client.stream("GET", "/v1/events") as stream:
        lines = stream.iter_lines()
        wanted = {
            predict(client, image, f"live-{i}").json()["inspection_id"]
            for i, image in enumerate(tiny_images["good"])
        }
        while wanted:
            line = next(lines)
            wanted = {identifier for identifier in wanted if identifier not in line}
