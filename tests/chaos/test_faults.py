"""Faults on purpose under load: no wrong answer, nothing lost or doubled, and recovery without hands."""

import io
import json
import logging
import resource
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from app.errors.problems import TYPES
from app.registry.packing import pack
from flows.fastflow.bundle.bundle import MANIFEST
from tests.support import s3
from tests.support.cluster import Cluster, cluster
from tests.support.cluster_load import Load, require_each_once
from tests.support.faulty_proxy import FaultyProxy
from tests.support.fleet import Fleet
from tests.support.nginx import PROGRAM
from tests.support.postgres import Postgres, binaries
from tests.support.waiting import eventually

logger = logging.getLogger(__name__)

ANSWERS = 15  # before each fault, and after it
SECONDS = 5.0  # that a fault lasts
CUT_UPLOADS = 40
_SOCKET = ".s.PGSQL.5432"  # of PostgreSQL

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(PROGRAM is None, reason="no nginx; on Debian: apt-get install nginx"),
]


@dataclass
class Plant:
    """Two servers behind nginx, which reach PostgreSQL and S3 through proxies.

    Attributes:
        scores: of each category, by image.
        archive: a version of the first category, to upload.
    """

    cluster: Cluster
    fleet: Fleet
    postgres: Postgres
    database: FaultyProxy
    store: FaultyProxy
    scores: dict[tuple[str, str], list[float]]
    archive: bytes

    def http(self, url: str | None = None) -> httpx.Client:
        """Make a client for nginx, or for one of the servers."""
        headers = {"X-API-Key": self.cluster.key}
        context = ssl.create_default_context(cafile=self.cluster.tls.certificate)
        return httpx.Client(base_url=url or self.cluster.url, headers=headers, verify=context, timeout=60)


@pytest.fixture(scope="module")
def plant(small_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    work = tmp_path_factory.mktemp("plant")
    programs = binaries()
    assert programs is not None, "there is no PostgreSQL server; on Debian: apt-get install postgresql"
    with (
        pytest.MonkeyPatch.context() as environment,
        s3.S3Server() as s3_server,
        Postgres(programs) as postgres,
        postgres.database() as url,
        FaultyProxy(("127.0.0.1", s3_server.port)) as store,
        # A socket's path must be short.
        FaultyProxy(
            postgres.folder / ".s.PGSQL.5432", postgres.folder / "proxy" / ".s.PGSQL.5432"
        ) as database,
    ):
        for name, value in s3.ENVIRONMENT.items():
            environment.setenv(name, value)
        environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{store.port}")
        place = f"s3://{s3_server.make_bucket()}/plant"
        through_proxy = url.replace(str(postgres.folder), str(postgres.folder / "proxy"))
        with cluster(work / "servers", small_fleet.models, url, place, database=through_proxy) as servers:
            archive = _archive(small_fleet, work)
            yield Plant(servers, small_fleet, postgres, database, store, small_fleet.scores(), archive)


def _archive(fleet: Fleet, work: Path) -> bytes:
    """Pack the first version of the first category under another name."""
    category = fleet.categories[0]
    folder = work / category / "uploaded"
    shutil.copytree(fleet.models / category / fleet.versions[category][0], folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | {"version": folder.name}))
    file = io.BytesIO()
    pack(folder, file)
    return file.getvalue()


@dataclass
class Publisher:
    """A thread that uploads, inspects with and deletes a version, again and again.

    Attributes:
        faults: answers that no client should get.
        published: number of uploads that succeeded.
    """

    plant: Plant
    faults: list[str] = field(default_factory=list)
    published: int = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Publish within the block."""
        ended = threading.Event()
        thread = threading.Thread(target=self._run, args=[ended])
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _run(self, ended: threading.Event) -> None:
        category = self.plant.fleet.categories[0]
        versions = f"/v1/models/{category}/versions"
        image = self.plant.fleet.images[0]
        # The engines of the service and of the fleet round differently.
        expected = pytest.approx(
            self.plant.scores[category, self.plant.fleet.versions[category][0]][0], rel=1e-3
        )
        with self.plant.http() as client:
            while not ended.is_set():
                answer = self._send(client, "POST", versions, self.plant.archive)
                self.published += answer is not None and answer.status_code == 201
                query = "?store=false"
                answer = self._send(client, "POST", f"{versions}/uploaded/predict{query}", image)
                if (
                    answer is not None
                    and answer.is_success
                    and answer.json()["score"] != pytest.approx(expected)
                ):
                    self.faults.append(f"a wrong score by an uploaded version: {answer.text[:200]}")
                self._send(client, "DELETE", f"{versions}/uploaded")

    def _send(
        self, client: httpx.Client, method: str, path: str, content: bytes = b""
    ) -> httpx.Response | None:
        kind = "image/jpeg" if "predict" in path else "application/zip"
        with suppress(httpx.TransportError):
            answer = client.request(method, path, content=content, headers={"Content-Type": kind})
            # 404 and 409: an attempt just before the fault may or may not have succeeded.
            if not (answer.is_success or answer.status_code in (404, 409) or _is_documented(answer)):
                self.faults.append(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
            return answer
        return None


def _is_documented(answer: httpx.Response) -> bool:
    """Tell if an answer says that a service or the room on a disk is missing, or nginx that a server is."""
    if answer.headers.get("content-type") == "application/problem+json":
        name = answer.json()["type"]
        fits = name in TYPES and TYPES[name].status == answer.status_code
        return fits and (answer.status_code == 503 or name == "too-large")
    return answer.status_code in (502, 504) and "nginx" in answer.text


def kill_a_server(plant: Plant) -> None:
    server = plant.cluster.servers[0]
    server.kill()
    server.start()


def kill_the_other_server(plant: Plant) -> None:
    server = plant.cluster.servers[1]
    server.kill()
    server.start()


def kill_postgresql(plant: Plant) -> None:
    plant.postgres.kill()
    time.sleep(SECONDS)
    plant.postgres.start()


def cut_postgresql(plant: Plant) -> None:
    for _ in range(10):
        plant.database.cut()
        time.sleep(SECONDS / 10)


def refuse_postgresql(plant: Plant) -> None:
    with plant.database.refusing():
        time.sleep(SECONDS)


def hang_postgresql(plant: Plant) -> None:
    with plant.database.hanging():
        time.sleep(SECONDS)


def cut_the_store(plant: Plant) -> None:
    for _ in range(10):
        plant.store.cut()
        time.sleep(SECONDS / 10)


def refuse_the_store(plant: Plant) -> None:
    with plant.store.refusing():
        time.sleep(SECONDS)


def hang_the_store(plant: Plant) -> None:
    with plant.store.hanging():
        time.sleep(2 * SECONDS)  # longer than the store's own time limit


def fill_a_disk(plant: Plant) -> None:
    """Let one server write nothing but the first bytes of a file, as on a disk that is full."""
    server = plant.cluster.servers[0]
    before = resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (512, resource.RLIM_INFINITY))
    with plant.http(server.url) as client:
        eventually(lambda: "\nflowgauge_history_accepting 0.0\n" in client.get("/metrics").text)
    time.sleep(SECONDS)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, before)


def cut_uploads(plant: Plant) -> None:
    """Begin uploads, to both servers, and end each connection in the middle."""
    image = plant.fleet.images[0]
    head = (
        f"POST /v1/models/{plant.fleet.categories[0]}/predict HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"X-API-Key: {plant.cluster.key}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n"
    ).encode()
    for number in range(CUT_UPLOADS):
        server = plant.cluster.servers[number % 2]
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            sent = head + image
            connection.sendall(sent[: len(sent) * (number + 1) // (CUT_UPLOADS + 1)])


FAULTS: list[Callable[[Plant], None]] = [
    kill_a_server,
    kill_the_other_server,
    kill_postgresql,
    cut_postgresql,
    refuse_postgresql,
    hang_postgresql,
    cut_the_store,
    refuse_the_store,
    hang_the_store,
    fill_a_disk,
    cut_uploads,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_invariants_hold_after(fault: Callable[[Plant], None], plant: Plant) -> None:
    load = Load(plant.cluster, plant.fleet, prefix=fault.__name__, scores=plant.scores)
    publisher = Publisher(plant)
    with load.running(), publisher.running():
        load.wait_for_answers(ANSWERS)
        fault(plant)
        load.wait_for_answers(ANSWERS)
    seen = len(load.answered), publisher.published, dict(load.refusals)
    logger.info("%s: %d answers, %d versions published, refusals %s", fault.__name__, *seen)
    assert publisher.faults == []
    require_each_once(plant.cluster, load)
    eventually(lambda: _all_ready(plant))
    first, second = _versions(plant)
    assert first == second


def _all_ready(plant: Plant) -> bool:
    return all(httpx.get(f"{server.url}/health/ready").is_success for server in plant.cluster.servers)


def _versions(plant: Plant) -> list[set[str]]:
    """Return the versions that each server lists of the first category; inspect with each of them."""
    found = []
    path = f"/v1/models/{plant.fleet.categories[0]}"
    for server in plant.cluster.servers:
        with plant.http(server.url) as client:
            versions = {one["version"] for one in client.get(path).raise_for_status().json()["versions"]}
            for version in versions:
                answer = client.post(
                    f"{path}/versions/{version}/predict?store=false",
                    content=plant.fleet.images[0],
                    headers={"Content-Type": "image/jpeg"},
                )
                assert answer.status_code == 200, answer.text
            found.append(versions)
    return found
