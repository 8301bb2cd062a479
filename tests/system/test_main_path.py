"""The main path in real processes: train, evaluate, serve, inspect; equal scores for an image."""

import csv
import json
import re
import shutil
from pathlib import Path

import httpx
import pytest

from flows.fastflow.bundle.models_folder import active_version, versions
from tests.support.server import Server
from tests.system.processes import FlowGauge


def posted(client: httpx.Client, picture: Path) -> dict[str, object]:
    """Return the server's answer to an image sent as raw bytes."""
    answer = client.post(
        "/v1/models/tiny/predict",
        content=picture.read_bytes(),
        headers={"Content-Type": "image/png"},
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
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

    assert len(require_equal_scores(flowgauge, tiny_data, first)) == 16

    # Half of the defects are reviewed, and no longer part of the test.
    reviewed = flowgauge.cwd / "reviewed"
    reviewed.mkdir()
    for i in range(5):
        shutil.copy(tiny_data / f"tiny/test/scratch/{i:03}.png", reviewed)
    said = flowgauge.run("learn", "--category", "tiny", "--defects", reviewed)
    assert "with a part learned from 5 defects and 22 good images" in said
    [version] = set(versions(models, "tiny")) - {first}
    flowgauge.run("models", "activate", "tiny", version)
    assert len(require_equal_scores(flowgauge, tiny_data, version)) == 11
    summary = json.loads((flowgauge.cwd / "evaluations/tiny" / version / "summary.json").read_text())
    assert summary["flow_alone"]["defects"] == 5
    assert summary["flow_alone"]["image_auroc"] > 0.9


def require_equal_scores(flowgauge: FlowGauge, data: Path, version: str) -> dict[str, float]:
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

    with Server(flowgauge.cwd / "models", flowgauge.cwd) as server, server.client() as client:
        asked = flowgauge.run("predict", test, "--category", "tiny", "--json", "--url", server.url)
        assert {name: scores(asked)[name] for name in evaluated} == pytest.approx(evaluated, rel=1e-5)

        answers = {name: posted(client, test / name) for name in evaluated}
        assert {name: a["score"] for name, a in answers.items()} == pytest.approx(evaluated, rel=1e-5)
        assert {name: a["decision"] for name, a in answers.items()} == decided
    assert "Traceback" not in server.log.read_text()
    return evaluated
