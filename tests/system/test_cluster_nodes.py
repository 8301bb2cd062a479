"""Nodes of a Ray cluster that are killed under load: one of three, and the head."""

import itertools
import logging
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support import fleet
from tests.support.cluster_load import Load, require_each_once
from tests.support.ports import reserved_port
from tests.support.postgres import Postgres
from tests.support.waiting import eventually
from tests.system.ray_service import deployed_on, prepared

logger = logging.getLogger(__name__)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not installed"),
]


def test_node_killed_and_node_added_under_load(tmp_path: Path, postgres: Postgres) -> None:
    """Three nodes serve 100 categories: no undocumented refusal, no wrong score, nothing lost."""
    made = fleet.make(tmp_path / "fleet", size=64, categories=100, versions=1)
    scores = made.scores()
    with (
        postgres.database() as url,
        deployed_on(3, tmp_path, url, made.models) as service,
    ):
        load = Load(service, made, clients=4, scores=scores)
        with load.running():
            load.wait_for_answers(400)
            killed = time.monotonic()
            service.cluster.kill_node(1)
            load.wait_for_answers(200)
            service.cluster.start_node()
            eventually(lambda: len(service.replicas()) == 3)
            load.wait_for_answers(200)
        said = "%d answered, refusals %s, the last %.1f s after the kill"
        logger.info(said, len(load.answered), dict(load.refusals), max(0, load.last_refusal - killed))
        require_each_once(service, load)


@contextmanager
def redis(folder: Path) -> Iterator[int]:
    """Run a Redis server and yield its port."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server; on Debian: apt-get install redis-server")
    holder, port = reserved_port()
    options = {"port": port, "bind": "127.0.0.1", "dir": folder, "save": "", "logfile": folder / "redis.log"}
    command = [program, *(word for name, value in options.items() for word in (f"--{name}", str(value)))]
    with holder, subprocess.Popen(command) as process:
        try:
            yield port
        finally:
            process.kill()


def stop(process: subprocess.Popen[bytes]) -> int:
    process.kill()
    return process.wait()


@pytest.mark.parametrize("with_redis", [True, False], ids=["redis", "no-redis"])
def test_head_killed_under_load(
    with_redis: bool,
    tmp_path: Path,
    postgres: Postgres,
    small_fleet: fleet.Fleet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With Redis the other node serves meanwhile and after it; without Redis all is started again."""
    models = small_fleet.copy(tmp_path / "models").models
    with ExitStack() as stack:
        if with_redis:
            port = stack.enter_context(redis(tmp_path))
            monkeypatch.setenv("RAY_REDIS_ADDRESS", f"127.0.0.1:{port}")
        url = stack.enter_context(postgres.database())
        service = stack.enter_context(prepared(2, tmp_path, url, models))
        nodes, commands = service.cluster, [service.start_command(2)]
        stack.callback(lambda: [stop(command) for command in commands])
        load = Load(service, small_fleet, clients=2)
        with load.running():
            load.wait_for_answers(40)
            stop(commands[0])  # it runs on the head
            nodes.kill_node(0)
            killed = time.monotonic()
            if with_redis:
                eventually(lambda: len(service.replicas()) == 1)
                [survivor] = service.replicas()
                load.wait_for_answers(40)
                nodes.start_node(head=True)
                eventually(lambda: len(service.replicas()) == 2)  # by Ray, without the command
                assert survivor in service.replicas()
            else:
                nodes.start_node(head=True)
                assert nodes.nodes[1].wait(120) != 0  # it was a node of another cluster
                nodes.start_node()
            commands.append(service.start_command(2))
            load.wait_for_answers(40)
        begun = sorted(begun - killed for begun, _, _ in load.served)
        gap = max(later - sooner for sooner, later in itertools.pairwise(begun))
        said = "%d answered, refusals %s, %.1f s in which no inspection began that was answered"
        logger.info(said, len(begun), dict(load.refusals), gap)
        require_each_once(service, load)
