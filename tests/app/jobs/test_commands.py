"""Commands of jobs, in a service without models."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import flowgauge
from app.products.image_store import NewImage
from app.schemas.products import NewProduct
from flows.fastflow.bundle.bundle import read_manifest
from flows.fastflow.bundle.models_folder import resolve, versions
from tests.app.support.services import create_service


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


def test_log_is_without_folders_of_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with create_service(Path()) as client:  # "."
        jobs: Any = client.app.state.jobs  # type: ignore[attr-defined]
        job = jobs.store.add("check", "cap", {}, "tester")
        text = f"at 7.5: {tmp_path}/cap/v1, {jobs.folders.data(job)}/cap/a.png, {jobs.folders.path}"
        assert jobs._commands.redact(job, text) == "at 7.5: cap/v1, cap/a.png, jobs"
