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
from threading import Event, Thread
from typing import Any

import httpx
import pytest

from tests.support import fleet
from tests.support.cluster_load import Load, require_each_once
from tests.support.ports import reserved_port
from tests.support.postgres import Postgres
from tests.support.waiting import eventually
from tests.system.ray_service import Deployed, deployed_on, prepared

logger = logging.getLogger(__name__)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not installed"),
]
_REFUSALS = {"draining", "model-loading", "history-unavailable", "queue-full", "deadline-exceeded"}


class Line:
    """A client that sends images to all categories in turn, each until it is answered."""

    def __init__(self, number: int, service: Deployed, made: fleet.Fleet, stop: Event) -> None:
        self.answers: list[tuple[str, int, dict[str, Any]]] = []
        self.refused: list[tuple[float, str]] = []
        self.wrong: list[str] = []
        self._number, self._service, self._made, self._stop = number, service, made, stop
        self.thread = Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        with self._service.http() as client:
            for i in itertools.count(self._number * 25):
                category, image = self._made.categories[i % 100], i % len(self._made.images)
                while (answer := self._send(client, category, image, f"{self._number}-{i}")) is None:
                    if self._stop.is_set():
                        return
                    time.sleep(0.2)
                self.answers.append((category, image, answer))
                if self._stop.is_set():
                    return

    def _send(self, client: httpx.Client, category: str, image: int, key: str) -> dict[str, Any] | None:
        headers = {"Content-Type": "image/jpeg", "Idempotency-Key": key}
        try:
            response = client.post(
                f"/v1/models/{category}/predict", content=self._made.images[image], headers=headers
            )
        except httpx.TransportError as error:  # its proxy was on the node that was killed
            self.refused.append((time.monotonic(), type(error).__name__))
            return None
        if response.status_code == 200:
            answer: dict[str, Any] = response.json()
            return answer
        self.refused.append((time.monotonic(), response.json().get("type", response.text)))
        if response.json().get("type") not in _REFUSALS:
            self.wrong.append(response.text)
        return None


def test_node_killed_and_node_added_under_load(tmp_path: Path, postgres: Postgres) -> None:
    made = fleet.make(tmp_path / "fleet", size=64, categories=100, versions=1)
    with (
        postgres.database() as url,
        deployed_on(3, tmp_path, url, made.models) as service,
    ):
        stop = Event()
        lines = [Line(number, service, made, stop) for number in range(4)]

        def answered() -> int:
            return sum(len(line.answers) for line in lines)

        eventually(lambda: answered() >= 400)
        killed = time.monotonic()
        service.cluster.kill_node(1)
        before = answered()
        eventually(lambda: answered() >= before + 200)
        service.cluster.start_node()
        eventually(lambda: len(service.replicas()) == 3)
        before = answered()
        eventually(lambda: answered() >= before + 200)
        stop.set()
        for line in lines:
            line.thread.join()
        answers = [answer for line in lines for answer in line.answers]
        refused = [one for line in lines for one in line.refused]
        assert [wrong for line in lines for wrong in line.wrong] == []
        later = [at - killed for at, _ in refused]
        said = "%d answered; %d refused, up to %.1f s after the kill"
        logger.info(said, len(answers), len(refused), max(later, default=0))
        scores: dict[tuple[str, int], set[float]] = {}
        for category, image, answer in answers:
            model = answer["model"]
            assert (model["category"], model["version"]) == (category, made.versions[category][0])
            scores.setdefault((category, image), set()).add(round(answer["score"], 3))
        assert all(len(seen) == 1 for seen in scores.values())
        ids = [answer["inspection_id"] for _, _, answer in answers]
        assert len(set(ids)) == len(ids)
        with service.http() as client:
            assert {client.get(f"/v1/inspections/{one}").status_code for one in ids} == {200}


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
