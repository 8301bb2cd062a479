"""FlowGauge beside anomalib: resnet18 with the same weights, 256 px, eight flow steps.

FlowGauge takes part twice: with its default conditioners, and with the kernels and widths of anomalib's
FastFlow, so that both do the same arithmetic. anomalib's FastFlow and PatchCore run in its own inferencers
(PyTorch and OpenVINO) and its own interpreter. A batch is eight decoded images of the model's input size. A
JPEG file is read, decoded, resized and inspected alone, up to its score and map.
"""

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.anomalib_environment import anomalib_python
from bench.contestants import Results, measure_in_turns, start_contestants
from bench.inference import engines
from bench.inference.models import photographs, trained_model
from bench.inference.options import Options
from bench.report import Ratio, Report, ratio
from flows.fastflow.bundle.models_folder import BACKBONES

_BACKBONE = "resnet18"
_DEFAULT, _SAME = "FlowGauge", "FlowGauge (same kernels)"
_MODELS = {"fastflow": "FastFlow", "patchcore": "PatchCore"}
_THEIRS = ("torch-float32", "openvino-float32", "openvino-bfloat16")
# (our engine, their engine) pairs whose batches are compared. By default anomalib uses PyTorch, and our
# server uses OpenVINO on a CPU.
_PAIRS = (
    ("openvino-float32", "openvino-float32"),
    ("openvino-bfloat16", "openvino-bfloat16"),
    ("openvino-float32", "torch-float32"),
    ("openvino-bfloat16", "torch-float32"),
    ("torch-float32", "torch-float32"),
    ("torch-bfloat16", "torch-float32"),
)


def run(options: Options) -> Report:
    """Measure FlowGauge, anomalib and the backbone alone.

    Raises:
        EnvironmentMissingError: anomalib is not installed.
        ContestantError: a contestant does not load.
    """
    python = anomalib_python(options.anomalib)
    bundles = {
        title: trained_model(options.folder, _BACKBONE, as_anomalib=title == _SAME)
        for title in (_DEFAULT, _SAME)
    }
    [weights] = (bundles[_DEFAULT].parent.parent / BACKBONES).glob(f"{_BACKBONE}-*.safetensors")
    jpeg = photographs(options.folder / "images")[0]
    ours, missing = engines.available(options.device)
    theirs = [name for name in _THEIRS if name in ours]
    commands = [
        (f"{title} {name}", options.contestant_command("flowgauge", bundle, name, jpeg))
        for title, bundle in bundles.items()
        for name in ours
    ]
    commands += [
        (f"anomalib {title} {name}", _their_command(python, options, kind, name, weights, jpeg))
        for kind, title in _MODELS.items()
        for name in theirs
    ]
    commands += [
        (f"backbone {name}", options.contestant_command("backbone", bundles[_DEFAULT], name, jpeg))
        for name in theirs
    ]
    with ExitStack() as stack:
        contestants = start_contestants(stack, commands, options.folder / "logs", options.threads)
        results = measure_in_turns(contestants, ["batch", "jpg"], options.rounds, options.seconds)
    return Report(
        "anomalib",
        {"backbone": _BACKBONE, "image": "900 px JPEG", **options.settings()},
        [results.table("FlowGauge, anomalib and the backbone alone", "jpg", "a JPEG file")],
        ratios(results, ours, theirs),
        missing,
        figures=results.figures(),
    )


def _their_command(
    python: Path, options: Options, kind: str, engine: str, weights: Path, jpeg: Path
) -> list[str]:
    return [
        str(python), "-W", "ignore", "-m", "bench.inference.anomalib_contestant", kind,
        f"--engine={engine}", f"--weights={weights}", f"--work={options.folder / 'anomalib'}",
        f"--device={options.device}", f"--threads={options.threads}", f"--file={jpeg}",
    ]  # fmt: skip


def ratios(results: Results, ours: Sequence[str], theirs: Sequence[str]) -> list[Ratio]:
    """Return their milliseconds over ours, round by round: how many times as fast FlowGauge is."""
    found = _batch_ratios(results, "FastFlow", _SAME, ours, theirs)
    for title in _MODELS.values():
        found += _batch_ratios(results, title, _DEFAULT, ours, theirs)
        best = _fastest(results, [f"anomalib {title} {name}" for name in theirs])
        exact = [name for name in ours if name.endswith("float32")]
        for which, names in (("best", ours), ("best float32", exact)):
            mine = _fastest(results, [f"FlowGauge {name}" for name in names])
            what = f"a JPEG file: anomalib's best ({best}) over our {which} ({mine})"
            found.append(ratio(what, results.per_round(best, "jpg"), results.per_round(mine, "jpg")))
    return found


def _batch_ratios(
    results: Results, title: str, own: str, ours: Sequence[str], theirs: Sequence[str]
) -> list[Ratio]:
    found = []
    for mine, other in _PAIRS:
        if mine in ours and other in theirs:
            names = f"anomalib {title} {other}", f"{own} {mine}"
            what = f"batch of 8: {names[0]} over {names[1]}"
            times = [results.per_round(name, "batch") for name in names]
            cpu = [results.cpu_per_round(name, "batch") for name in names]
            found += [ratio(what, *times), ratio(f"{what}, CPU time", *cpu)]
    return found


def _fastest(results: Results, names: Sequence[str]) -> str:
    """Return the contestant that inspects a file in the least time."""
    return min(names, key=lambda name: statistics.median(results.per_round(name, "jpg")))
