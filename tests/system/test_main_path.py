"""The main path in real processes: train, evaluate, serve, inspect; one score for a picture everywhere."""

import csv
import json
import re
import time
from pathlib import Path

import httpx
import pytest

from flows.fastflow.models_folder import active_version, versions
from tests.system.processes import FlowGauge, stop
from training.config import load_config
from training.progress import Silent
from training.run import train


def posted(client: httpx.Client, picture: Path) -> dict[str, object]:
    """What the server says of a picture that is sent as it is."""
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


def test_train_evaluate_serve_inspect(flowgauge: FlowGauge, tiny_data: Path, tiny_yaml: Path) -> None:
    which = ("--data", tiny_data, "--category", "tiny")
    said = flowgauge.run("train", *which, "--config", tiny_yaml)
    assert "published and active: models/tiny/" in said
    models = flowgauge.cwd / "models"
    first = active_version(models, "tiny")
    assert first is not None

    said = flowgauge.run("evaluate", *which)
    assert re.search(r"^image AUROC (1\.000|0\.9\d\d)$", said, re.MULTILINE)
    folder = flowgauge.cwd / "evaluations/tiny" / first
    with (folder / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    test = tiny_data / "tiny/test"
    evaluated = {Path(row["path"]).relative_to(test).as_posix(): float(row["score"]) for row in rows}
    decided = {Path(row["path"]).relative_to(test).as_posix(): row["decision"] for row in rows}
    assert len(evaluated) == 16

    locally = flowgauge.run("predict", test, "--category", "tiny", "--json")
    assert scores(locally) == pytest.approx(evaluated, rel=1e-5)

    with flowgauge.serve() as (server, client):
        url = str(client.base_url).rstrip("/")
        asked = flowgauge.run("predict", test, "--category", "tiny", "--json", "--url", url)
        assert scores(asked) == pytest.approx(evaluated, rel=1e-5)

        answers = {name: posted(client, test / name) for name in evaluated}
        assert {name: a["score"] for name, a in answers.items()} == pytest.approx(evaluated, rel=1e-5)
        assert {name: a["decision"] for name, a in answers.items()} == decided

        publish_another(flowgauge, tiny_data, tiny_yaml)
        second = active_version(models, "tiny")
        assert versions(models, "tiny") == [first, second]
        # The version before serves on until the new one is loaded and verified, then this one does.
        answer = posted(client, test / "scratch/000.png")
        while (version := version_in(answer)) != second:
            assert version == first
            time.sleep(0.1)
            answer = posted(client, test / "scratch/000.png")
        assert answer["score"] != pytest.approx(evaluated["scratch/000.png"], rel=1e-3)
        # The version before can still be asked for by name.
        older = client.post(
            f"/v1/models/tiny/versions/{first}/predict", content=(test / "scratch/000.png").read_bytes()
        ).json()
        assert older["score"] == pytest.approx(evaluated["scratch/000.png"], rel=1e-5)
        stop(server)

    (models / "tiny/active").write_text(first)
    with flowgauge.serve() as (server, client):
        answers = {name: posted(client, test / name) for name in evaluated}
        assert {name: a["score"] for name, a in answers.items()} == pytest.approx(evaluated, rel=1e-5)
        assert {version_in(answer) for answer in answers.values()} == {first}
        assert "Traceback" not in stop(server)


def version_in(answer: dict[str, object]) -> object:
    """The version that gave an answer."""
    model = answer["model"]
    assert isinstance(model, dict)
    return model["version"]


def publish_another(flowgauge: FlowGauge, data: Path, config: Path) -> None:
    """Train a second version beside the running server; not in a process of its own, to save its start."""
    train(
        load_config(config, seed=1, threads=2),  # as many as all tests have
        data,
        "tiny",
        models=flowgauge.cwd / "models",
        runs=flowgauge.cwd / "runs",
        resume=False,
        progress=Silent(),
    )
