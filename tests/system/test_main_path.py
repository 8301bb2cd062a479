"""The main path in real processes: train, evaluate, serve, inspect; equal scores for an image."""

import csv
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.fastflow.bundle.models_folder import active_version
from tests.support.server import Server
from tests.support.waiting import eventually
from tests.system.processes import FlowGauge


def posted(client: httpx.Client, picture: Path) -> dict[str, Any]:
    """Return the server's answer to an image sent as raw bytes."""
    answer = client.post(
        "/v1/models/tiny/predict", content=picture.read_bytes(), headers={"Content-Type": "image/png"}
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def scores(printed: str) -> dict[str, float]:
    """Scores by file from `flowgauge predict --json`."""
    return {line["file"]: line["score"] for line in map(json.loads, printed.splitlines())}


def test_train_evaluate_serve_learn(flowgauge: FlowGauge, tiny_data: Path, tiny_yaml: Path) -> None:
    which = ("--data", tiny_data, "--category", "tiny")
    said = flowgauge.run("train", *which, "--config", tiny_yaml)
    assert "published and active: models/tiny/" in said
    models = flowgauge.cwd / "models"
    first = active_version(models, "tiny")
    assert first is not None

    with Server(models, flowgauge.cwd) as server, server.client() as client:
        before = require_equal_scores(flowgauge, client, tiny_data, first)
        assert len(before) == 16

        # Half of the defects are reviewed, and no longer part of the test.
        version, answers = learn_under_load(client, tiny_data / "tiny/test")
        assert active_version(models, "tiny") == version
        after = require_equal_scores(flowgauge, client, tiny_data, version)
        assert len(after) == 11
    assert "Traceback" not in server.log.read_text()
    for name, answer in answers:
        expected = {first: before, version: after}[answer["model"]["version"]]
        assert answer["score"] == pytest.approx(expected[name], rel=1e-5)
    summary = json.loads((flowgauge.cwd / "evaluations/tiny" / version / "summary.json").read_text())
    assert summary["flow_alone"]["defects"] == 5
    assert summary["flow_alone"]["image_auroc"] > 0.9


def learn_under_load(client: httpx.Client, images: Path) -> tuple[str, list[tuple[str, Any]]]:
    """Review defects, learn from them and activate the version, while other images are inspected.

    Returns:
        The version, and the inspected images with their answers.
    """
    names, done = ["good/000.png", "scratch/007.png"], threading.Event()

    def inspect() -> list[tuple[str, Any]]:
        answers, is_last = [], False
        while not is_last:
            is_last = done.is_set()  # so that the last images come after the activation
            answers += [(name, posted(client, images / name)) for name in names]
            done.wait(0.2)  # more would take the processor from the job, which gives way
        return answers

    for i in range(5):
        answer = posted(client, images / f"scratch/{i:03}.png")
        path = answer["links"]["inspection"]
        assert client.get(path).status_code == 200  # it is in the history
        review = {"verdict": "defect", "expected_revision": 0}
        assert client.post(f"{path}/reviews", json=review).status_code == 201
    with ThreadPoolExecutor() as threads:
        inspecting = threads.submit(inspect)
        try:
            job = client.post("/v1/jobs", json={"kind": "learn", "product": "tiny"})
            assert job.status_code == 202, job.text
            url = job.headers["Location"]
            eventually(lambda: client.get(url).json()["state"] not in ("queued", "running"))
            learned = client.get(url).json()["result"]
            version = learned["version"]
            assert learned["learned"]["defects"] == 5
            activate = f"/v1/models/tiny/versions/{version}:activate"
            assert client.post(activate, timeout=300).status_code == 200
            assert posted(client, images / names[0])["model"]["version"] == version
        finally:
            done.set()
    answers = inspecting.result()
    assert {answer["model"]["version"] for _, answer in answers} == {learned["from_version"], version}
    return version, answers


def require_equal_scores(
    flowgauge: FlowGauge, client: httpx.Client, data: Path, version: str
) -> dict[str, float]:
    """Check that evaluate, predict and the server score the test set alike, and return the scores."""
    said = flowgauge.run("evaluate", "--data", data, "--category", "tiny")
    assert re.search(r"^image AUROC (1\.000|0\.9\d\d)$", said, re.MULTILINE)
    folder = flowgauge.cwd / "evaluations/tiny" / version
    with (folder / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    test = data / "tiny/test"
    evaluated = {Path(row["path"]).relative_to(test).as_posix(): float(row["score"]) for row in rows}
    decided = {Path(row["path"]).relative_to(test).as_posix(): row["decision"] for row in rows}

    locally = flowgauge.run("predict", test, "--category", "tiny", "--json")
    assert {name: scores(locally)[name] for name in evaluated} == pytest.approx(evaluated, rel=1e-5)

    asked = flowgauge.run("predict", test, "--category", "tiny", "--json", "--url", str(client.base_url))
    assert {name: scores(asked)[name] for name in evaluated} == pytest.approx(evaluated, rel=1e-5)

    answers = {name: posted(client, test / name) for name in evaluated}
    assert {name: a["score"] for name, a in answers.items()} == pytest.approx(evaluated, rel=1e-5)
    assert {name: a["decision"] for name, a in answers.items()} == decided
    return evaluated
