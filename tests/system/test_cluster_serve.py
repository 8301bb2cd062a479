"""Replicas on a real Ray cluster by `serve deploy`, with PostgreSQL and a store."""

import logging
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from app.client import Job
from tests.support.cluster_load import Listener, Load, require_each_once
from tests.support.fleet import Fleet
from tests.support.postgres import Postgres
from tests.support.waiting import eventually
from tests.system.ray_service import Deployed, prepared

logger = logging.getLogger(__name__)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not installed"),
]


@pytest.fixture(scope="module")
def deployed(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, small_fleet: Fleet
) -> Iterator[Deployed]:
    root = tmp_path_factory.mktemp("deployed")
    fleet = small_fleet.copy(root / "models")
    with postgres.database() as url, prepared(2, root, url, fleet.models, dashboard=True) as service:
        service.deploy_config(2, 2)
        eventually(lambda: len(service.replicas()) == 2)
        eventually(service.is_running)
        warm_up(service, fleet)
        yield service


def warm_up(service: Deployed, fleet: Fleet) -> None:
    """Send images of each category at once: Ray spreads them while no replica is known to hold it."""

    def send(category: str) -> None:
        with service.client() as client:
            client.inspect(category, fleet.images[0], store=False)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(send, [category for category in fleet.categories for _ in range(8)]))


def test_keys_are_required(deployed: Deployed) -> None:
    response = httpx.get(f"{deployed.url}/v1/models")
    assert (response.status_code, response.json()["type"]) == (401, "unauthenticated")
    assert len(response.headers.get_list("X-Request-ID")) == 1


def test_activation_holds_on_all_replicas(deployed: Deployed, small_fleet: Fleet) -> None:
    activated: dict[str, tuple[float, str]] = {}
    load = Load(deployed, small_fleet, prefix="activation")
    began = time.time()
    with load.running():
        load.wait_for_answers(30)
        for category, (_, version) in small_fleet.versions.items():
            with deployed.http() as client:
                path = f"/v1/models/{category}/versions/{version}:activate"
                client.post(path).raise_for_status()
            activated[category] = time.monotonic(), version
        time.sleep(2)
        load.wait_for_answers(60)
    require_each_once(deployed, load)
    journals = [path for folder in deployed.journals() for path in folder.iterdir()]
    used = {path.parents[2].name for path in journals if path.stat().st_mtime > began}
    assert used == {"replica-0", "replica-1"}
    old = [
        begun - activated[category][0]
        for begun, category, version in load.served
        if version != activated[category][1]
    ]
    logger.info("last inspection by an old version begun %.2f s after the activation", max(old))
    assert max(old) < 2


def test_product_is_taught_on_a_replica(deployed: Deployed, tiny_data: Path) -> None:
    images = sorted((tiny_data / "tiny/train/good").glob("*.png"))[:12]
    with deployed.client() as client:
        client.create_product("taught")
        client.add_images("taught", {image.name: image for image in images})
        job = client.start_job("starter", "taught")
        news = list(client.follow_job(job.id))
        assert isinstance(news[-1], Job)
        assert news[-1].state == "succeeded", news[-1].error
        answers = [client.inspect("taught", images[0]) for _ in range(8)]  # Ray spreads them
    assert {answer.model.version for answer in answers} == {(news[-1].result or {})["version"]}


def test_killed_replicas_lose_nothing(deployed: Deployed, small_fleet: Fleet) -> None:
    """Each replica is killed once under load, and a live feed misses and repeats nothing."""
    live = Listener(deployed.client())
    load = Load(deployed, small_fleet, prefix="kill")
    with load.running():
        for replica in deployed.replicas():
            load.wait_for_answers(20)
            os.kill(replica, signal.SIGKILL)
            eventually(lambda dead=replica: dead not in deployed.replicas() and len(deployed.replicas()) == 2)  # type: ignore[misc]
        load.wait_for_answers(20)
    logger.info("%d answers, refusals %s", len(load.answered), dict(load.refusals))
    require_each_once(deployed, load)
    # Each new replica has taken the folder of a dead one, and files what that left.
    assert {path.name for path in deployed.history.iterdir()} == {"replica-0", "replica-1"}
    with deployed.client() as client:
        client.review(next(iter(load.answered)), "good", expected_revision=0)
    ids = live.all_ids()
    assert len(ids) == len(set(ids)) > len(load.answered)
    assert Listener(deployed.client()).all_ids() == ids


def test_update_and_scale_down_lose_nothing(deployed: Deployed, small_fleet: Fleet) -> None:
    before = set(deployed.replicas())
    load = Load(deployed, small_fleet, prefix="update")
    with load.running():
        load.wait_for_answers(20)
        deployed.deploy_config(2, 2, FLOWGAUGE_LOG_FORMAT="json")
        eventually(lambda: len(deployed.replicas()) == 2 and not before & set(deployed.replicas()))
        load.wait_for_answers(20)
        deployed.deploy_config(1, 1, FLOWGAUGE_LOG_FORMAT="json")
        eventually(lambda: len(deployed.replicas()) == 1)
        load.wait_for_answers(20)
    logger.info("%d answers, refusals %s", len(load.answered), dict(load.refusals))
    require_each_once(deployed, load)
