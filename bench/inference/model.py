"""The model alone: FlowGauge's complete one over its backbone, on every engine, in batches and one by one."""

from contextlib import ExitStack

from bench.inference import engines
from bench.inference.contestant import compete, load_all
from bench.inference.models import DEFAULT, model
from bench.inference.options import Options
from bench.inference.report import (
    Aim,
    Part,
    contestants_table,
    cpu_per_round,
    per_round,
    ratio,
    turns_for_files,
)

_AIM = Aim(1.4, at_most=True)


def run(options: Options) -> Part:
    """Time the default model, and the backbone alone."""
    bundle = model(options.folder)
    floors, missing = engines.here(engines.ENGINES, options.device)
    ours = [engine for engine in floors if engine in engines.OURS]
    asked = [(f"backbone {name}", options.ours("backbone", bundle, name)) for name in floors]
    asked += [(f"FlowGauge {name}", options.ours("flowgauge", bundle, name)) for name in ours]
    with ExitStack() as stack:
        contestants = load_all(stack, asked, options.logs, options.threads)
        results = compete(contestants, ["batch", "one"], options.rounds, options.seconds)
    part = Part("model", {"backbone": DEFAULT, **options.figures()}, notes=missing)
    part.tables.append(contestants_table("The complete model and its backbone", results, "one"))
    for name in ours:
        mine, floor = f"FlowGauge {name}", f"backbone {name}"
        what = f"{name}: complete model over its backbone, batch of 8"
        aim = _AIM if name.startswith("openvino") else None
        part.ratios += [
            ratio(what, per_round(results, mine, "batch"), per_round(results, floor, "batch"), aim),
            ratio(
                f"{what}, CPU time",
                cpu_per_round(results, mine, "batch"),
                cpu_per_round(results, floor, "batch"),
            ),
        ]
    part.figures = turns_for_files(results)
    return part
