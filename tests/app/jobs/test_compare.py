"""Comparisons as jobs, in a service with the model `tiny` and a copy of it."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

import flowgauge
from app.errors.problems import Problem
from app.jobs.completion import Completion
from app.jobs.job import JobRecord
from app.products.image_store import NewImage
from app.schemas.comparison import VersionComparison
from app.schemas.history import Verdict
from app.schemas.products import NewProduct
from flows.fastflow.bundle import models_folder
from tests.app.jobs.conftest import no_command
from tests.app.support.bundles import copy_version
from tests.app.support.services import create_service

pytestmark = pytest.mark.usefixtures("no_lanes")
NEW = "20990101T000000-abcdef"
OTHER = "20980101T000000-abcdef"


def prepare_job(client: TestClient) -> tuple[JobRecord, list[str]]:
    state: Any = client.app.state  # type: ignore[attr-defined]
    job = state.jobs.store.add("compare", "tiny", {"version": NEW, "against": OTHER}, "tester", 1, 1)
    state.jobs.folders.create(job)
    return job, state.jobs._commands.prepare(replace(job, threads=1))


def test_comparison_names_the_products_images(
    store: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = str(models_folder.active_version(store, "tiny"))
    for version in (NEW, OTHER):
        copy_version(store, version)
    with create_service(store) as client:
        state: Any = client.app.state  # type: ignore[attr-defined]
        state.products.create(NewProduct(name="tiny"))

        def add(path: Path, label: Verdict) -> str:
            data = path.read_bytes()
            sha256 = hashlib.sha256(data).hexdigest()
            state.products.images.add("tiny", NewImage(sha256, "png", path.name, 8, 8, data, label))
            return sha256

        fitted = sorted((tiny_data / "tiny/train/good").glob("*.png"))
        with pytest.raises(Problem, match="Both versions know all images"):
            prepare_job(client)
        for path in fitted:
            add(path, "good")
        test = tiny_data / "tiny/test"
        for path in sorted((test / "good").glob("*.png"))[:3]:
            add(path, "good")
        defects = {add(path, "defect") for path in sorted((test / "scratch").glob("*.png"))[:3]}
        job, command = prepare_job(client)
        assert command[:4][-1] == "compare"
        result = CliRunner().invoke(flowgauge.app, command[3:])
        assert result.exit_code == 0, result.output
        told = json.loads(result.stdout.splitlines()[-1])
        assert (told["good"], told["defective"], told["changed"]) == (13, 3, 0)
        assert told["before"]["calibrated_good"] == 10
        # Equal versions differ on nothing; say that they do.
        file = next((state.jobs.folders.data(job) / "tiny/test/defect").iterdir())
        decision = {"score": 1.0, "p_value": 0.5, "decision": "PASS"}
        image = {"path": f"test/{file.parent.name}/{file.name}", "kind": "defect"}
        told["images"] = [{**image, "before": decision, "after": {**decision, "decision": "REJECT"}}]
        completion = Completion(state.model_files, state.jobs.folders, state.products, None)  # type: ignore[arg-type]
        assert client.portal is not None
        completed = client.portal.call(completion.complete, job, told, no_command)
        comparison = VersionComparison.model_validate(completed.result)
        assert comparison.images[0].image in defects
        assert "path" not in completed.result["images"][0]
        body = {"kind": "compare", "product": "tiny", "settings": {"version": first}}
        answer = client.post("/v1/jobs", json=body)
        assert answer.status_code == 409
        assert "compared with itself" in answer.json()["detail"]
