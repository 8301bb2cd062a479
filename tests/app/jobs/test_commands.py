"""Commands of jobs, as services prepare them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import flowgauge
from app.jobs.completion import Completion
from app.products.image_store import NewImage
from app.schemas.products import NewProduct
from flows.fastflow.bundle.bundle import read_manifest
from flows.fastflow.bundle.models_folder import resolve, versions
from tests.app.jobs.conftest import no_command
from tests.app.support.calibrations import URL, good_images
from tests.app.support.services import create_service, read_json
from tests.support.postgres import Postgres

pytestmark = pytest.mark.usefixtures("no_lanes")


def test_starter_has_the_precision_of_the_service(tmp_path: Path, tiny_data: Path) -> None:
    (tmp_path / "models").mkdir()
    with create_service(tmp_path / "models", precision="bfloat16", engine="torch") as client:
        state: Any = client.app.state  # type: ignore[attr-defined]
        state.products.create(NewProduct(name="part"))
        for i, path in enumerate(sorted((tiny_data / "tiny/train/good").glob("*.png"))[:10]):
            image = NewImage(f"{i:064x}", "png", path.name, 8, 8, path.read_bytes(), "good")
            state.products.images.add("part", image)
        job = state.jobs.store.add("starter", "part", {}, "tester", 1, 10)
        state.jobs.folders.create(job)
        command = state.jobs._commands.prepare(replace(job, threads=1))
    result = CliRunner().invoke(flowgauge.app, command[3:])
    assert result.exit_code == 0, result.output
    [version] = versions(tmp_path / "models", "part")
    manifest = read_manifest(resolve(tmp_path / "models", "part", version))
    assert set(manifest.thresholds) == {"float32", "bfloat16"}


def test_shared_version_is_calibrated_and_evaluated(
    store: Path, first: str, postgres: Postgres, tmp_path: Path
) -> None:
    (tmp_path / "shared").mkdir()
    shared: dict[str, Any] = {"store": f"file://{tmp_path}/shared", "device": "cpu"}
    with postgres.database() as url, create_service(store, database=url, **shared) as client:
        state: Any = client.app.state  # type: ignore[attr-defined]
        state.products.create(NewProduct(name="tiny"))
        for i, data in enumerate(good_images(9)):
            image = NewImage(f"{i:064x}", "png", f"{i}.png", 8, 8, data, "good")
            state.products.images.add("tiny", image)
        completion = Completion(state.model_files, state.jobs.folders, state.products, None)  # type: ignore[arg-type]

        def run(kind: str) -> dict[str, Any]:
            job = state.jobs.store.add(kind, "tiny", {"version": first}, "tester", 1, 9)
            state.jobs.folders.create(job)
            commands = state.jobs._commands
            command = commands.prepare(replace(job, threads=1))
            result = CliRunner().invoke(flowgauge.app, command[3:], env=commands.environment())
            assert result.exit_code == 0, result.output
            told = json.loads(result.stdout.splitlines()[-1])
            assert client.portal is not None
            shown: dict[str, Any] = client.portal.call(completion.complete, job, told, no_command).result
            assert (state.jobs.folders.find_report(job, first) is not None) is (kind == "evaluate")
            return shown

        made = run("calibrate")
        assert made["pictures"] == 9
        calibration = read_json(client, URL)
        assert calibration["threshold"]["calibration"] == {"id": made["calibration"], "source": "line"}
        assert calibration["threshold"]["n_calibration"] == 9
        assert "data" not in run("evaluate")["summary"]


def test_log_is_without_folders_of_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with create_service(Path()) as client:  # "."
        jobs: Any = client.app.state.jobs  # type: ignore[attr-defined]
        job = jobs.store.add("check", "cap", {}, "tester")
        text = f"at 7.5: {tmp_path}/cap/v1, {jobs.folders.data(job)}/cap/a.png, {jobs.folders.path}"
        assert jobs._commands.redact(job, text) == "at 7.5: cap/v1, cap/a.png, jobs"
