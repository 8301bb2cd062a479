"""The default model beside its bare backbone, on every engine, in batches and one by one.

Ratios come from extra turns, a tenth as long and ten times as many, in which model and backbone follow each
other closely. A busy machine changes during a full round of all contestants.
"""

from collections.abc import Mapping
from contextlib import ExitStack

from bench.contestants import Results, measure_in_turns, start_contestants
from bench.inference import engines
from bench.inference.models import DEFAULT, trained_model
from bench.inference.options import Options
from bench.report import Ratio, Report, ratio

_SHORT_TURNS = 10  # short turns of a pair in place of a full one


def run(options: Options) -> Report:
    """Measure the default model and the backbone alone."""
    bundle = trained_model(options.folder)
    names, missing = engines.available(options.device)
    commands = [
        (f"{title} {name}", options.contestant_command(kind, bundle, name))
        for title, kind in (("backbone", "backbone"), ("FlowGauge", "flowgauge"))
        for name in names
    ]
    with ExitStack() as stack:
        contestants = start_contestants(stack, commands, options.folder / "logs", options.threads)
        results = measure_in_turns(contestants, ["batch", "one"], options.rounds, options.seconds)
        by_name = {one.name: one for one in contestants}
        pairs = {
            name: measure_in_turns(
                [by_name[f"backbone {name}"], by_name[f"FlowGauge {name}"]],
                ["batch"],
                _SHORT_TURNS * options.rounds,
                options.seconds / _SHORT_TURNS,
            )
            for name in names
        }
    return Report(
        "model",
        {"backbone": DEFAULT, **options.settings()},
        [results.table("The complete model and its backbone", "one", "one image")],
        ratios(pairs),
        missing,
        figures={**results.figures(), "pairs": {name: pair.figures() for name, pair in pairs.items()}},
    )


def ratios(pairs: Mapping[str, Results]) -> list[Ratio]:
    """Divide the complete model by its backbone, engine by engine."""
    found = []
    for name, pair in pairs.items():
        model, floor = f"FlowGauge {name}", f"backbone {name}"
        what = f"{name}: complete model over its backbone, batch of 8"
        times, cpu = (
            [of(one, "batch") for one in (model, floor)] for of in (pair.per_round, pair.cpu_per_round)
        )
        found += [ratio(what, *times), ratio(f"{what}, CPU time", *cpu)]
    return found
