"""`flowgauge train --ray`: on a real cluster, with workers killed; results as of a local run."""

import hashlib
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from subprocess import STDOUT, Popen

import cv2
import pytest

from flows.fastflow.bundle.bundle import read_manifest, verify
from flows.fastflow.bundle.models_folder import active_version, versions
from tests.support.server import Server
from tests.support.waiting import eventually
from tests.system.processes import COMMAND, FlowGauge
from tests.system.ray_cluster import Cluster, cluster

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not installed"),
]
# Long enough for two kills to fall into it.
LONG = "bottle_1"
YAML = f"""
input_size: [64, 64]
device: cpu
backbone: {{out_indices: [1, 2]}}
flow: {{steps: 2}}
fit: {{epochs: 3, batch_size: 4, threads: 1}}
calibration: {{fraction: 0.3, target_fpr: 0.3}}
categories: {{{LONG}: {{fit: {{epochs: 200}}}}}}
"""


@pytest.fixture(scope="module")
def three_nodes() -> Iterator[Cluster]:
    with cluster(3) as found:
        yield found


@pytest.fixture(scope="module")
def twelve(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """A folder with run.yaml and data/: twelve categories of twelve small images."""
    root = tmp_path_factory.mktemp("twelve")
    for product in ("bottle", "grid", "screw"):
        files = sorted((shared_data / "mvtec" / product / "train/good").iterdir())
        for number in range(4):
            good = root / "data" / f"{product}_{number}" / "train/good"
            good.mkdir(parents=True)
            for path in files[12 * number : 12 * number + 12]:
                image = cv2.imread(str(path))
                assert image is not None
                small = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)
                cv2.imwrite(str(good / f"{path.stem}.png"), small)
    (root / "run.yaml").write_text(YAML)
    return root


@dataclass(frozen=True)
class Training:
    """A running `flowgauge train --ray` and its log."""

    process: Popen[str]
    log: Path
    cluster: Cluster

    def wait_for(self, said: str) -> None:
        self.until(lambda: said in self.log.read_text())

    def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)

    def kill_worker(self, category: str) -> None:
        [worker] = self.cluster.processes(f"train {category}")
        os.kill(worker, signal.SIGKILL)


def arguments(root: Path, out: Path, *options: str) -> list[str]:
    places = {
        "data": root / "data",
        "config": root / "run.yaml",
        "models": out / "models",
        "runs": out / "runs",
    }
    return ["train", *(f"--{name}={path}" for name, path in places.items()), *options]


def start(cluster: Cluster, root: Path, out: Path, *options: str) -> Training:
    log = out / "log.txt"
    command = [*COMMAND, *arguments(root, out, "--ray", cluster.address, *options)]
    with log.open("w") as file:
        process = Popen(command, stdout=file, stderr=STDOUT, text=True, cwd=out, env=cluster.environment)
    return Training(process, log, cluster)


def contents(models: Path, category: str) -> dict[str, str]:
    """Digests of a bundle's files, without what tells when and how fast it was made."""
    [version] = versions(models, category)
    bundle = models / category / version
    verify(bundle)
    found = {}
    for path in sorted(path for path in bundle.rglob("*") if path.is_file()):
        text, name = path.read_bytes(), path.relative_to(bundle).as_posix()
        if name == "manifest.json":
            text = read_manifest(bundle).model_dump_json(exclude={"version", "created", "files"}).encode()
        elif name.startswith("report/"):
            text = re.sub(rb'"seconds": ?[0-9.e-]+', b"", text)
        found[name] = hashlib.sha256(text).hexdigest()
    return found


def test_worker_killed_twice_changes_no_result(
    flowgauge: FlowGauge, three_nodes: Cluster, twelve: Path, tmp_path: Path
) -> None:
    local = tmp_path / "local"
    flowgauge.run(*arguments(twelve, local, "--all"))
    training = start(three_nodes, twelve, tmp_path, "--all")
    for attempt, epoch in ((1, 20), (2, 60)):
        training.wait_for(f"{LONG}: epoch {epoch} of 200")
        training.kill_worker(LONG)
        training.wait_for(f"{LONG}: its worker was lost, attempt {attempt + 1} of 4 follows")
    assert training.process.wait(timeout=300) == 0, training.log.read_text()

    summary = json.loads((tmp_path / "runs/summary.json").read_text())
    names = sorted(path.name for path in (twelve / "data").iterdir())
    assert [row["category"] for row in summary] == names
    assert {row["status"] for row in summary} == {"trained"}
    lines = training.log.read_text().splitlines()
    begun = [line.split()[1] for line in lines if re.match(r"\[\d+/12\] ", line)]
    assert sorted(begun) == names
    for row in summary:
        name = row["category"]
        assert contents(tmp_path / "models", name) == contents(local / "models", name)
        assert active_version(tmp_path / "models", name) == row["version"]

    again = start(three_nodes, twelve, tmp_path, "--all", "--resume")
    assert again.process.wait(timeout=400) == 0, again.log.read_text()
    resumed = json.loads((tmp_path / "runs/summary.json").read_text())
    assert {row["status"] for row in resumed} == {"reused"}
    assert [row["version"] for row in resumed] == [row["version"] for row in summary]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_end_of_the_command_ends_its_tasks(
    three_nodes: Cluster, twelve: Path, tmp_path: Path, number: signal.Signals
) -> None:
    training = start(three_nodes, twelve, tmp_path, f"--category={LONG}", "--no-activate", "--progress=json")
    training.wait_for("epoch 3 of 200")
    training.process.send_signal(number)
    assert training.process.wait(timeout=60) == (130 if number == signal.SIGINT else -number)
    while three_nodes.processes(f"train {LONG}"):
        time.sleep(0.1)
    assert versions(tmp_path / "models", LONG) == []

    resumed = start(three_nodes, twelve, tmp_path, f"--category={LONG}", "--resume", "--progress=json")
    assert resumed.process.wait(timeout=400) == 0, resumed.log.read_text()
    events = [json.loads(line) for line in resumed.log.read_text().splitlines()]
    assert [event["event"] for event in events].count("result") == 1
    assert events[-1] == {**events[-1], "event": "result", "category": LONG, "reused": False}
    shares = [event["share"] for event in events if event["event"] == "progress"]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)


def test_job_of_a_server_trains_on_the_cluster(
    three_nodes: Cluster, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "HOME"):
        monkeypatch.setenv(name, three_nodes.environment[name])
    (tmp_path / "models").mkdir()
    images = sorted((tiny_data / "tiny/train/good").glob("*.png"))[:12]
    files = [("file", (path.name, path.read_bytes())) for path in images]
    server = Server(tmp_path / "models", tmp_path / "server", ray=three_nodes.address)
    with server, server.client() as client:
        client.post("/v1/products", json={"name": "part", "takeover": "manual"}).raise_for_status()
        path = "/v1/products/part/images"
        client.post(path, params={"label": "good"}, files=files).raise_for_status()
        wanted = {"kind": "train", "product": "part", "settings": {"epochs": 2}}
        job = client.post("/v1/jobs", json=wanted).raise_for_status().json()
        eventually(lambda: bool(three_nodes.processes("train part")))
        path = f"/v1/jobs/{job['id']}"
        eventually(lambda: client.get(path).json()["state"] not in ("queued", "running"))
        ended = client.get(path).json()
        assert ended["state"] == "succeeded", ended["error"]
        assert versions(tmp_path / "models", "part") == [ended["result"]["version"]]


def test_without_a_cluster_nothing_is_begun(flowgauge: FlowGauge, twelve: Path, tmp_path: Path) -> None:
    address = "127.0.0.1:9"
    told = flowgauge.run(*arguments(twelve, tmp_path, "--all", "--ray", address), code=1)
    assert told.startswith(f"error: this machine is in no Ray cluster at {address} (")
    assert not (tmp_path / "runs").exists()
