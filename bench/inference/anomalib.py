"""FlowGauge beside anomalib, in one run: resnet18 with the same weights, 256 px, eight steps of flow.

FlowGauge is there twice: with the conditioners of its default flow, and with the kernels and widths of
anomalib's, so that both do the same arithmetic.

anomalib's FastFlow and PatchCore run by its own inferencers, PyTorch and OpenVINO, in an interpreter of their
own. Batches are of pictures of the models' input size that are decoded already; a file is read, decoded,
brought to size and inspected by itself, to its score and map.
"""

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.anomalib_environment import anomalib_python
from bench.inference import engines
from bench.inference.contestant import Results, compete, load_all
from bench.inference.models import model, photographs
from bench.inference.options import Options
from bench.inference.report import (
    Aim,
    Part,
    Ratio,
    contestants_table,
    cpu_per_round,
    per_round,
    ratio,
    turns_for_files,
)
from flows.fastflow.models_folder import BACKBONES

_BACKBONE = "resnet18"
_DEFAULT, _SAME = "FlowGauge", "FlowGauge (same kernels)"
_MODELS = {"fastflow": "FastFlow", "patchcore": "PatchCore"}
_THEIRS = ("torch-float32", "openvino-float32", "openvino-bfloat16")
# Of which engines of ours and theirs batches are compared, and what is aimed at. Their PyTorch inferencer is
# what they compute by unless told otherwise, OpenVINO is what a server of ours does on a CPU.
_PAIRS = (
    ("openvino-float32", "openvino-float32", Aim(1.8, at_most=False)),
    ("openvino-bfloat16", "openvino-bfloat16", Aim(1.8, at_most=False)),
    ("openvino-int8", "openvino-bfloat16", None),
    ("openvino-float32", "torch-float32", Aim(3.5, at_most=False)),
    ("openvino-bfloat16", "torch-float32", Aim(6.0, at_most=False)),
    ("torch-float32", "torch-float32", Aim(3.5, at_most=False)),
    ("torch-bfloat16", "torch-float32", Aim(6.0, at_most=False)),
)
_ONE_FILE = Aim(2.0, at_most=False)
_AIMED = "FastFlow"
_FLOORS = ("torch-float32", "openvino-float32", "openvino-bfloat16", "openvino-int8")


def run(options: Options) -> Part:
    """Time both, and the backbone alone.

    Raises:
        EnvironmentMissingError: there is no anomalib.
        ContestantError: it cannot be loaded.
    """
    settings = {"backbone": _BACKBONE, "picture": "900 px JPEG", **options.figures()}
    python = anomalib_python(options.anomalib)
    bundles = {
        title: model(options.folder, _BACKBONE, as_anomalib=title == _SAME) for title in (_DEFAULT, _SAME)
    }
    bundle = bundles[_DEFAULT]
    [weights] = (bundle.parent.parent / BACKBONES).glob(f"{_BACKBONE}-*.safetensors")
    jpeg = photographs(options.folder / "pictures")[0]
    found, missing = engines.here(engines.ENGINES, options.device)
    ours = [engine for engine in found if engine in engines.OURS]
    asked = [
        (f"{title} {name}", options.ours("flowgauge", own, name, jpeg))
        for title, own in bundles.items()
        for name in ours
    ]
    theirs = [
        engine
        for engine in _THEIRS
        if (options.device == "cpu" or engine.startswith("torch"))
        and not engines.emulated(engine, options.device)
    ]
    asked += [
        (f"anomalib {_MODELS[kind]} {name}", _theirs(python, options, kind, name, weights, jpeg))
        for kind in _MODELS
        for name in theirs
    ]
    floors = [engine for engine in _FLOORS if engine in found]
    asked += [(f"backbone {name}", options.ours("backbone", bundle, name, jpeg)) for name in floors]
    with ExitStack() as stack:
        contestants = load_all(stack, asked, options.logs, options.threads)
        results = compete(contestants, ["batch", "jpg"], options.rounds, options.seconds)
    part = Part("anomalib", settings, notes=missing)
    part.tables.append(contestants_table("FlowGauge, anomalib and the backbone alone", results, "jpg"))
    part.ratios = ratios(results, ours, theirs)
    part.figures = turns_for_files(results)
    return part


def _theirs(python: Path, options: Options, kind: str, engine: str, weights: Path, jpeg: Path) -> list[str]:
    return [
        str(python), "-W", "ignore", "-m", "bench.inference.anomalib_subject", kind,
        f"--engine={engine}", f"--weights={weights}", f"--work={options.folder / 'anomalib'}",
        f"--device={options.device}", f"--threads={options.threads}", f"--file={jpeg}",
    ]  # fmt: skip


def ratios(results: Results, ours: Sequence[str], theirs: Sequence[str]) -> list[Ratio]:
    """How many times faster FlowGauge is: their milliseconds over ours, round by round.

    Args:
        results: what was timed.
        ours: FlowGauge's engines.
        theirs: anomalib's.
    """
    found = _in_batches(results, _AIMED, _SAME, ours, theirs)
    for title in _MODELS.values():
        found += _in_batches(results, title, _DEFAULT, ours, theirs)
        best = _fastest(results, [f"anomalib {title} {name}" for name in theirs])
        exact = [name for name in ours if name.endswith("float32")]
        for which, engines_of_ours in (("best", ours), ("best float32", exact)):
            mine = _fastest(results, [f"FlowGauge {name}" for name in engines_of_ours])
            found.append(
                ratio(
                    f"a JPEG file: anomalib's best ({best}) over our {which} ({mine})",
                    per_round(results, best, "jpg"),
                    per_round(results, mine, "jpg"),
                    _ONE_FILE if title == _AIMED and which == "best" else None,
                )
            )
    return found


def _in_batches(
    results: Results, title: str, own: str, ours: Sequence[str], theirs: Sequence[str]
) -> list[Ratio]:
    found = []
    for mine, other, aim in _PAIRS:
        if mine not in ours or other not in theirs:
            continue
        names = f"anomalib {title} {other}", f"{own} {mine}"
        what = f"batch of 8: {names[0]} over {names[1]}"
        wall = [per_round(results, name, "batch") for name in names]
        busy = [cpu_per_round(results, name, "batch") for name in names]
        found += [
            ratio(what, wall[0], wall[1], aim if (title, own) == (_AIMED, _DEFAULT) else None),
            ratio(f"{what}, CPU time", busy[0], busy[1]),
        ]
    return found


def _fastest(results: Results, names: Sequence[str]) -> str:
    """Of some contestants, the one that inspects a file in the least time."""
    return min(names, key=lambda name: statistics.median(per_round(results, name, "jpg")))
