"""Tests of the inference benchmark."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.contestants import Results, TimedCalls
from bench.inference import anomalib, engines, http, model


def timed(milliseconds: dict[tuple[str, str], float]) -> Results:
    timings = {}
    for (name, task), each in milliseconds.items():
        images = 8 if task == "batch" else 1
        timings[name, task] = [
            TimedCalls([slower * each * images / 1000], slower * images, images) for slower in (1, 2)
        ]
    return Results(timings, {})


def test_model_is_divided_by_its_backbone() -> None:
    pairs = {
        name: timed({(f"FlowGauge {name}", "batch"): each, (f"backbone {name}", "batch"): 20.0})
        for name, each in (("openvino-float32", 26.0), ("torch-float32", 40.0))
    }
    assert [one.median for one in model.ratios(pairs)] == pytest.approx([1.3, 1, 2, 1])


def test_anomalib_is_divided_by_flowgauge() -> None:
    theirs = {
        (f"anomalib {title} torch-float32", task): each
        for title, slower in (("FastFlow", 1), ("PatchCore", 4))
        for task, each in (("batch", 80.0 * slower), ("jpg", 90.0 * slower))
    }
    ours = {
        ("FlowGauge torch-float32", "batch"): 20.0,
        ("FlowGauge torch-float32", "jpg"): 60.0,
        ("FlowGauge torch-bfloat16", "batch"): 16.0,
        ("FlowGauge torch-bfloat16", "jpg"): 15.0,
        ("FlowGauge (same kernels) torch-float32", "batch"): 40.0,
        ("FlowGauge (same kernels) torch-bfloat16", "batch"): 64.0,
    }
    found = anomalib.ratios(timed(theirs | ours), ["torch-float32", "torch-bfloat16"], ["torch-float32"])
    medians = {one.what: one.median for one in found if not one.what.endswith("CPU time")}
    assert len(medians) == 10
    batch, jpeg = "batch of 8: anomalib FastFlow torch-float32 over FlowGauge", "a JPEG file: anomalib's best"
    assert medians[f"{batch} (same kernels) torch-bfloat16"] == 1.25
    assert medians[f"{batch} torch-float32"] == 4.0
    assert medians[f"{batch} torch-bfloat16"] == 5.0
    patchcore = f"{jpeg} (anomalib PatchCore torch-float32) over our best"
    assert medians[f"{patchcore} (FlowGauge torch-bfloat16)"] == 24.0
    assert medians[f"{patchcore} float32 (FlowGauge torch-float32)"] == 6.0


def test_server_is_divided_by_the_floor() -> None:
    def timings(slower: int) -> dict[str, list[TimedCalls]]:
        one_client = {kind: [TimedCalls([0.01 * slower], 0)] for kind in ("jpg", "png")}
        return {**one_client, "jpg by 8": [TimedCalls([0.1], 0.08 * slower, 8)]}

    by_name = {http.SERVER: timings(3), "floor": timings(2)}
    results = Results({(name, task): t for name, tasks in by_name.items() for task, t in tasks.items()}, {})
    assert [one.median for one in http.ratios(results, "floor")] == pytest.approx([1.5, 1.5, 1.5])


def test_unavailable_engines_are_named() -> None:
    found, missing = engines.available("cuda")
    assert found == ["torch-float32", "torch-bfloat16"]
    assert len(missing) == 2
    assert "CPU only" in missing[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_missing_gpu_is_an_error() -> None:
    command = [sys.executable, "-m", "bench.inference", "model", "--device", "cuda"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "error: no GPU" in done.stderr


@pytest.mark.slow
def test_model_and_http_run(tmp_path: Path) -> None:
    options = ["--rounds", "1", "--seconds", "0.2", "--out", str(tmp_path), "--folder", str(tmp_path / "f")]
    command = [sys.executable, "-m", "bench.inference", "model", "http", *options]
    subprocess.run(command, check=True, capture_output=True)
    assert "complete model over its backbone" in (tmp_path / "model.md").read_text()
    assert len(json.loads((tmp_path / "http.json").read_text())["ratios"]) == 3
