"""The model alone: FlowGauge's complete one over its backbone, on every engine, in batches and one by one.

The ratio is of turns of its own, in which the two follow each other closely: a busy machine changes within
the seconds that a round of all of them takes.
"""

from collections.abc import Mapping
from contextlib import ExitStack

from bench.inference import engines
from bench.inference.contestant import Results, compete, load_all
from bench.inference.models import DEFAULT, model
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

_AIM = Aim(1.4, at_most=True)
# How many turns of a pair stand for one of the others, each that much shorter.
_BRIEF = 10


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
        by_name = {one.name: one for one in contestants}
        pairs = {
            name: compete(
                [by_name[f"backbone {name}"], by_name[f"FlowGauge {name}"]],
                ["batch"],
                _BRIEF * options.rounds,
                options.seconds / _BRIEF,
            )
            for name in ours
        }
    part = Part("model", {"backbone": DEFAULT, **options.figures()}, notes=missing)
    part.tables.append(contestants_table("The complete model and its backbone", results, "one"))
    part.ratios = ratios(pairs)
    closely = {name: turns_for_files(pair) for name, pair in pairs.items()}
    part.figures = {**turns_for_files(results), "pairs": closely}
    return part


def ratios(pairs: Mapping[str, Results]) -> list[Ratio]:
    """The complete model over its backbone, by engine."""
    found = []
    for name, pair in pairs.items():
        mine, floor = f"FlowGauge {name}", f"backbone {name}"
        what = f"{name}: complete model over its backbone, batch of 8"
        aim = _AIM if name.startswith("openvino") else None
        found += [
            ratio(what, per_round(pair, mine, "batch"), per_round(pair, floor, "batch"), aim),
            ratio(
                f"{what}, CPU time",
                cpu_per_round(pair, mine, "batch"),
                cpu_per_round(pair, floor, "batch"),
            ),
        ]
    return found
