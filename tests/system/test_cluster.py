"""Two servers on one PostgreSQL and one store behind nginx: kills lose no answer and double none."""

import random
import time
from pathlib import Path

import pytest

from app.client.sync import Client
from tests.support.cluster import cluster
from tests.support.cluster_load import Listener, Load, require_each_once
from tests.support.fleet import Fleet
from tests.support.nginx import PROGRAM
from tests.support.postgres import Postgres

KILLS = 10  # of each server
MAX_ANSWERS = 40  # before a kill

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="no nginx; on Debian: apt-get install nginx"),
]


@pytest.mark.timeout(1800)
def test_kills_lose_no_answer_and_double_none(
    small_fleet: Fleet, tmp_path: Path, postgres: Postgres, s3_url: str
) -> None:
    rng = random.Random(0)
    with postgres.database() as url, cluster(tmp_path / "work", small_fleet.models, url, s3_url) as two:
        listeners = [Listener(two.client())]
        load = Load(two, small_fleet)
        with load.running():
            for number in range(2 * KILLS):
                load.wait_for_answers(rng.randint(0, MAX_ANSWERS))
                time.sleep(rng.uniform(0, 0.25))  # so that kills hit every stage of the work
                server = two.servers[number % 2]
                server.kill()
                server.start()
        require_each_once(two, load)
        with two.client() as client:
            client.review(next(iter(load.answered)), "good", expected_revision=0)
        listeners += [Listener(Client(server.url, two.key, patience=120)) for server in two.servers]
        first, *others = (listener.all_ids() for listener in listeners)
        assert len(first) == len(set(first)) > len(load.answered)
        assert others == [first, first]
