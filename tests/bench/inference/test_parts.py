"""What the parts of the bench of inference make of what they are given."""

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from bench.anomalib_environment import EnvironmentMissingError
from bench.inference import engines, models
from bench.inference.anomalib import ratios
from bench.inference.anomalib import run as run_anomalib
from bench.inference.categories import memory_ratio
from bench.inference.contestant import Results, Turn
from bench.inference.copies import copies, flow_bytes
from bench.inference.gpu import GpuError, gpu_for
from bench.inference.growth import Turns
from bench.inference.http import AnswerError, Served, expect_engine, inspected
from bench.inference.http import ratios as ratios_of_http
from bench.inference.model import ratios as ratios_of_model
from bench.inference.options import Options
from bench.service.client import Answer
from bench.service.load import Shot
from flows.fastflow import models_folder
from flows.fastflow.bundle import BundleError
from flows.fastflow.detector import Detector
from flows.fastflow.images import decode
from training.config import RunConfig


def test_copies_are_served_as_categories_of_their_own(
    tiny_bundle_store: Path, tiny_images: dict[str, list[bytes]], tmp_path: Path
) -> None:
    original = models_folder.resolve(tiny_bundle_store, "tiny")
    names = copies(original, tmp_path / "models", 3)
    assert names == models_folder.categories(tmp_path / "models") == ["line-000", "line-001", "line-002"]
    image = decode(tiny_images["good"][0])
    [expected] = Detector.load(original, device="cpu").predict([image])
    digests = set()
    for name in names:
        folder = models_folder.resolve(tmp_path / "models", name)
        detector = Detector.load(folder, device="cpu")
        assert detector.predict([image])[0].score == pytest.approx(expected.score, rel=1e-3)
        digests.add(detector.manifest.files["flow.safetensors"])
    assert len(digests) == 3
    assert flow_bytes(tmp_path / "models", names) == 3 * (original / "flow.safetensors").stat().st_size


def test_copies_that_are_there_are_taken(tiny_bundle_store: Path, tmp_path: Path) -> None:
    original = models_folder.resolve(tiny_bundle_store, "tiny")
    copies(original, tmp_path / "models", 1)
    written = (tmp_path / "models" / "line-000" / original.name / "manifest.json").stat().st_mtime_ns
    assert copies(original, tmp_path / "models", 2) == ["line-000", "line-001"]
    assert (tmp_path / "models/line-000" / original.name / "manifest.json").stat().st_mtime_ns == written


def test_copies_of_an_earlier_model_are_not_taken(tiny_bundle_store: Path, tmp_path: Path) -> None:
    original = models_folder.resolve(tiny_bundle_store, "tiny")
    copies(original, tmp_path / "models", 1)
    store = shutil.copytree(tiny_bundle_store, tmp_path / "store")
    later = models_folder.resolve(store, "tiny")
    version = f"29991231T235959-{later.name.rpartition('-')[2]}"
    manifest = later / "manifest.json"
    manifest.write_text(manifest.read_text().replace(later.name, version))
    copies(later.rename(later.parent / version), tmp_path / "models", 1)
    assert models_folder.active_version(tmp_path / "models", "line-000") == version


def test_a_damaged_bundle_is_not_copied(tiny_bundle_store: Path, tmp_path: Path) -> None:
    store = shutil.copytree(tiny_bundle_store, tmp_path / "store")
    original = models_folder.resolve(store, "tiny")
    (original / "flow.safetensors").write_bytes(b"")
    with pytest.raises(BundleError, match="was changed"):
        copies(original, tmp_path / "models", 1)


def test_a_model_is_trained_anew_where_its_settings_are_others(
    tiny_bundle_store: Path, tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "CATEGORY", "tiny")
    monkeypatch.setattr(models, "_precisions", lambda: ["float32"])
    assert models._is_there(tiny_bundle_store, tiny_config)
    for part, change in (("flow", {"steps": 3}), ("score", {"sharpness": 2.0}), ("score", {"gaussian": 0.9})):
        settings = tiny_config.model_dump()
        settings[part] |= change
        other = RunConfig.model_validate(settings)
        assert not models._is_there(tiny_bundle_store, other)


def test_memory_over_flow_files() -> None:
    found = memory_ratio({1: 1000, 10: 1100, 200: 1300}, 200)
    assert found.values == (1.5,)
    assert found.row[-1] == "yes"
    assert memory_ratio({1: 1000, 200: 1500}, 200).row[-1] == "no"


def test_growth_is_of_the_median_turn() -> None:
    turns = Turns([7.0, 1.0, 2.0], [[0.1, 0.2], [0.3], [0.4, 0.5, 0.6, 0.7]], [0.2, 0.3, 0.1])
    assert turns.row == ["2.0", "400.0 / 670.0 / 694.0", "100.00"]


def test_an_answer_that_is_none_ends_the_part() -> None:
    right = Shot("part", 0, 1.0, 2.0, Answer(200, {}, b"{}"))
    refused = Shot("part", 0, 1.0, 2.0, Answer(503, {}, b"the queue is full"))
    lost = Shot("part", 0, 1.0, 2.0, None)
    assert inspected([right]) == [right]
    with pytest.raises(AnswerError, match=r"1 of 2 .* queue is full"):
        inspected([right, refused])
    with pytest.raises(AnswerError, match="connection was lost"):
        inspected([lost])
    with pytest.raises(AnswerError, match="nothing was sent"):
        inspected([])


def timed(milliseconds: dict[tuple[str, str], float]) -> Results:
    """Two rounds, of which the second one is twice as slow for everybody."""
    turns = {}
    for (name, work), each in milliseconds.items():
        images = 8 if work == "batch" else 1
        turns[name, work] = [Turn([slow * each * images / 1000], 1.0, images) for slow in (1, 2)]
    return Results(turns, {}, {})


def test_anomalib_is_compared_engine_by_engine_and_in_files_at_its_best() -> None:
    found = ratios(
        timed(
            {
                ("FlowGauge torch-float32", "batch"): 20.0,
                ("FlowGauge openvino-float32", "batch"): 10.0,
                ("FlowGauge torch-float32", "jpg"): 60.0,
                ("FlowGauge openvino-float32", "jpg"): 30.0,
                ("FlowGauge torch-bfloat16", "batch"): 16.0,
                ("FlowGauge torch-bfloat16", "jpg"): 15.0,
                ("FlowGauge (same kernels) torch-float32", "batch"): 40.0,
                ("FlowGauge (same kernels) openvino-float32", "batch"): 32.0,
                ("FlowGauge (same kernels) torch-bfloat16", "batch"): 64.0,
                **{
                    (f"anomalib {model} {engine}", work): each
                    for model, slower in (("FastFlow", 1), ("PatchCore", 4))
                    for engine, work, each in (
                        ("torch-float32", "batch", 80.0 * slower),
                        ("torch-float32", "jpg", 90.0 * slower),
                        ("openvino-float32", "batch", 40.0 * slower),
                        ("openvino-float32", "jpg", 45.0 * slower),
                    )
                },
            }
        ),
        ["torch-float32", "torch-bfloat16", "openvino-float32"],
        ["torch-float32", "openvino-float32"],
    )
    assert {one.what: (one.median, one.row[-1]) for one in found if not one.what.endswith("CPU time")} == {
        "batch of 8: anomalib FastFlow openvino-float32 over FlowGauge (same kernels) openvino-float32": (
            1.25,
            "",
        ),
        "batch of 8: anomalib FastFlow torch-float32 over FlowGauge (same kernels) openvino-float32": (
            2.5,
            "",
        ),
        "batch of 8: anomalib FastFlow torch-float32 over FlowGauge (same kernels) torch-float32": (2.0, ""),
        "batch of 8: anomalib FastFlow torch-float32 over FlowGauge (same kernels) torch-bfloat16": (
            1.25,
            "",
        ),
        "batch of 8: anomalib FastFlow openvino-float32 over FlowGauge openvino-float32": (4.0, "yes"),
        "batch of 8: anomalib FastFlow torch-float32 over FlowGauge openvino-float32": (8.0, "yes"),
        "batch of 8: anomalib FastFlow torch-float32 over FlowGauge torch-float32": (4.0, "yes"),
        "batch of 8: anomalib FastFlow torch-float32 over FlowGauge torch-bfloat16": (5.0, "no"),
        "batch of 8: anomalib PatchCore openvino-float32 over FlowGauge openvino-float32": (16.0, ""),
        "batch of 8: anomalib PatchCore torch-float32 over FlowGauge openvino-float32": (32.0, ""),
        "batch of 8: anomalib PatchCore torch-float32 over FlowGauge torch-float32": (16.0, ""),
        "batch of 8: anomalib PatchCore torch-float32 over FlowGauge torch-bfloat16": (20.0, ""),
        "a JPEG file: anomalib's best (anomalib FastFlow openvino-float32) over our best "
        "(FlowGauge torch-bfloat16)": (3.0, "yes"),
        "a JPEG file: anomalib's best (anomalib FastFlow openvino-float32) over our best float32 "
        "(FlowGauge openvino-float32)": (1.5, ""),
        "a JPEG file: anomalib's best (anomalib PatchCore openvino-float32) over our best "
        "(FlowGauge torch-bfloat16)": (12.0, ""),
        "a JPEG file: anomalib's best (anomalib PatchCore openvino-float32) over our best float32 "
        "(FlowGauge openvino-float32)": (6.0, ""),
    }


def test_cpu_time_is_compared_too() -> None:
    turns = {
        (f"{who} torch-float32", work): [Turn([1.0], cpu, 8 if work == "batch" else 1)]
        for who, cpu in (
            ("FlowGauge", 1.0),
            ("FlowGauge (same kernels)", 2.0),
            ("anomalib FastFlow", 3.0),
            ("anomalib PatchCore", 9.0),
        )
        for work in ("batch", "jpg")
    }
    found = ratios(Results(turns, {}, {}), ["torch-float32"], ["torch-float32"])
    assert [one.median for one in found if one.what.endswith("CPU time")] == pytest.approx([1.5, 3, 9])


def test_without_anomalib_the_part_says_so_before_it_trains(tmp_path: Path) -> None:
    options = Options(tmp_path / "new", 1, 1.0, 2, "cpu", "torch-float32", tmp_path / "python")
    with pytest.raises(EnvironmentMissingError, match="there is no interpreter"):
        run_anomalib(options)
    assert not options.folder.exists()


def test_engines_that_cannot_run_are_named() -> None:
    found, missing = engines.here(engines.ENGINES, "cuda")
    assert found == ["torch-float32", "torch-bfloat16"]
    assert len(missing) == 3
    assert "CPU alone" in missing[0]


@pytest.mark.usefixtures("without_bfloat16")
def test_where_bfloat16_is_emulated_nobody_waits_for_it() -> None:
    found, missing = engines.here(engines.ENGINES, "cpu")
    assert {"torch-float32", "openvino-float32"} <= set(found)
    assert not [name for name in found if name.endswith("bfloat16")]
    said = [line for line in missing if "no instructions for bfloat16" in line]
    assert [line.partition(" ")[0] for line in said] == ["torch-bfloat16", "openvino-bfloat16"]


def test_where_there_are_instructions_for_bfloat16_it_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    found, _ = engines.here(engines.ENGINES, "cpu")
    assert {"torch-bfloat16", "openvino-bfloat16"} <= set(found)


@pytest.mark.parametrize("name", ["torch", "torch-int4", "onnx-float32", ""])
def test_a_strange_engine_is_refused(name: str, tmp_path: Path) -> None:
    for ask in (engines.pick, engines.precision_of, engines.served_name, partial(engines.load, tmp_path)):
        with pytest.raises(engines.EngineNameError, match="there are: torch-float32"):
            ask(name)


def test_engines_have_the_precision_whose_calibration_counts() -> None:
    assert engines.precision_of("openvino-float32") == engines.precision_of("torch-float32") == "float32"
    assert engines.precision_of("torch-bfloat16") == "bfloat16"
    assert engines.precision_of("openvino-bfloat16") == "openvino-bfloat16"
    assert set(engines.OURS) >= {"torch-float32", "torch-bfloat16", "openvino-float32", "openvino-bfloat16"}


def test_an_engine_computes_by_its_name(tiny_bundle_store: Path, tiny_images: dict[str, list[bytes]]) -> None:
    detector = engines.load(models_folder.resolve(tiny_bundle_store, "tiny"), "torch-float32")
    images = [decode(data) for data in tiny_images["good"]]
    expected = [one.score for one in detector.scorer.score(images)]
    for name in engines.OURS:
        made = engines.scorer(detector, name)
        assert made.engine.name == engines.served_name(name)
        assert [one.score for one in made.score(images)] == pytest.approx(expected, rel=0.05)


def test_an_answer_by_another_engine_is_seen() -> None:
    shot = Shot("part", 0, 1.0, 2.0, Answer(200, {}, b'{"engine": "torch-cpu-float32"}'))
    expect_engine([shot], "torch-float32")
    with pytest.raises(AnswerError, match=r"openvino-float32 was asked for.* on torch-cpu-float32"):
        expect_engine([shot], "openvino-float32")


def test_a_gpu_part_needs_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(GpuError, match="got http"):
        gpu_for(["model", "http"])
    if torch.cuda.is_available():
        assert gpu_for(["model"])
        return
    command = ["-m", "bench.inference", "model", "--device", "cuda", "--out", str(tmp_path / "out")]
    said = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    assert said.returncode == 2
    assert "error: there is no GPU" in said.stderr
    assert not said.stdout
    assert not (tmp_path / "out").exists()


def test_the_server_is_held_to_the_least_floor() -> None:
    served = Served({"jpg": [[0.02, 0.03], [0.06]], "png": [[0.05], [0.09]]}, [], [12.0, 20.0])
    bare = {
        (name, work): [Turn([seconds], seconds, 8 if "by" in work else 1) for seconds in times]
        for name, slower in (("least", 1), ("backbone", 2))
        for work, times in (
            ("jpg", [0.01 * slower, 0.02 * slower]),
            ("png", [0.02 * slower, 0.03 * slower]),
            ("jpg by 8", [0.08 * slower, 0.08 * slower]),
        )
    }
    found = ratios_of_http(served, bare, {"least": "the least floor", "backbone": "its backbone"})
    assert [one.median for one in found] == pytest.approx([2.75, 2.75, 1.6, 1.375, 1.375, 0.8])
    assert [one.row[-1] for one in found] == ["no", "no", "yes", "", "", ""]


def test_a_model_is_set_against_the_backbone_on_the_same_engine() -> None:
    def pair(name: str, model: list[float], backbone: list[float]) -> Results:
        works = {f"FlowGauge {name}": model, f"backbone {name}": backbone}
        turns = {(one, "batch"): [Turn([t], 2 * t, 8) for t in times] for one, times in works.items()}
        return Results(turns, {}, {})

    pairs = {
        "openvino-float32": pair("openvino-float32", [0.026, 0.04, 0.03], [0.02, 0.02, 0.024]),
        "torch-float32": pair("torch-float32", [0.08], [0.04]),
    }
    found = ratios_of_model(pairs)
    assert [one.median for one in found] == pytest.approx([1.3, 1.3, 2, 2])
    assert [one.row[-1] for one in found] == ["yes", "", "", ""]
