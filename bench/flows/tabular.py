"""Density estimation on a table: our recipes against zuko and nflows, held-out log-likelihood in nats.

    python -m bench.flows.tabular            five splits, one thread
    python -m bench.flows.tabular --quick    a few steps, to see that it runs

The table is scikit-learn's breast cancer data (UCI, Wisconsin diagnostic): 569 cells' nuclei. Of its thirty
columns the ten means are taken, for with 569 rows few dimensions can be learned, and of those ten the
perimeter and the area go: they correlate with the radius by more than 0.98, and along that common line a
density could grow without bound. (Papamakarios et al. 2017, arXiv 1705.07057, leave columns out so.)

A seed is a split into 60 % to train, 20 % to validate and 20 % to test, and a start of the weights. Columns
are standardised with the training rows' statistics; the log-likelihoods are of the standardised rows. All
flows get the same rows, weight decay, steps and early stop, and a pair has the same size. Nothing is chosen
on test rows.
"""

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from torch import Tensor, nn

from bench.flows.comparison import Difference, difference, table, tally, without_infinities
from bench.flows.models import Pair, Recipe, matched, parameters, recipes
from bench.service.figures import report
from flows import Flow
from training.density.fit import DensityFitError, FitSettings, fit, mean_log_prob

COLUMNS = (
    "mean radius",
    "mean texture",
    "mean smoothness",
    "mean compactness",
    "mean concavity",
    "mean concave points",
    "mean symmetry",
    "mean fractal dimension",
)
_WIDTHS = {"MAF": 31, "spline coupling": 21}  # of ours; those of the others follow
_OTHERS = ("zuko", "nflows")
_PARTS = (0.6, 0.2)  # to train and to validate; the rest is to test


@dataclass(frozen=True)
class Plan:
    """How much is computed.

    Attributes:
        steps: of the optimiser, at most: the weights that did best on the validation rows are kept.
        seeds: splits.
        layers: of every flow.
    """

    steps: int = 400
    seeds: int = 5
    layers: int = 4
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2

    def pairs(self) -> list[Pair]:
        """Family by family, ours with each other library's."""
        made = recipes(affine=self.layers, spline=self.layers, autoregressive=self.layers)
        return [
            matched(len(COLUMNS), made[family, "flows"], width, made[family, other])
            for family, width in _WIDTHS.items()
            for other in _OTHERS
        ]

    def models(self) -> list[tuple[Recipe, int]]:
        """Every flow that is fitted, with its width, once."""
        pairs = self.pairs()
        ours = {pair.ours.name: (pair.ours, pair.width) for pair in pairs}
        return [*ours.values(), *((pair.theirs, pair.their_width) for pair in pairs)]

    def settings(self, seed: int) -> FitSettings:
        """Of every fit."""
        return FitSettings(
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            every=max(1, self.steps // 60),
            seed=seed,
        )


QUICK = Plan(steps=4, seeds=2, layers=2)


@dataclass(frozen=True)
class Split:
    """Rows of a table, standardised, each (N, D)."""

    train: Tensor
    validation: Tensor
    test: Tensor


def rows() -> Tensor:
    """The table, (569, 8)."""
    data = load_breast_cancer()
    names = list(data.feature_names)
    return torch.from_numpy(np.ascontiguousarray(data.data[:, [names.index(c) for c in COLUMNS]]))


def split(x: Tensor, seed: int) -> Split:
    """Rows in three parts at random, in units of the training rows' deviations from their mean."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    sizes = [round(len(x) * part) for part in _PARTS]
    train, validation, test = torch.split(x[order], [*sizes, len(x) - sum(sizes)])
    mean, deviation = train.mean(0), train.std(0)
    train, validation, test = (((part - mean) / deviation).float() for part in (train, validation, test))
    return Split(train, validation, test)


def fitted(recipe: Recipe, width: int, parts: Split, settings: FitSettings) -> nn.Module | None:
    """A flow that has learned the training rows; None if the fit failed."""
    torch.manual_seed(settings.seed)
    model = recipe.make(parts.train.shape[1], width)
    try:
        # Another library's model has the one method that the fit calls.
        fit(cast("Flow", model), parts.train, parts.validation, settings)
    except DensityFitError:
        return None
    return model


def compare(pair: Pair, test: dict[str, list[float]]) -> Difference:
    """Ours minus theirs in log-likelihood, split by split."""
    ours, theirs = test[pair.ours.name], test[pair.theirs.name]
    # Where neither could be fitted, that is a failure of ours.
    return difference([a - b if math.isfinite(a) else -math.inf for a, b in zip(ours, theirs, strict=True)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison. The exit code is 1 if ours is worse than another beyond the noise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few steps; figures mean nothing")
    parser.add_argument("--out", type=Path, default=Path("bench-results/flows"))
    options = parser.parse_args(arguments)
    plan = QUICK if options.quick else Plan()

    begun = time.monotonic()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    x = rows()
    models = plan.models()
    validation: dict[str, list[float]] = {recipe.name: [] for recipe, _ in models}
    test: dict[str, list[float]] = {recipe.name: [] for recipe, _ in models}
    for seed in range(plan.seeds):
        parts = split(x, seed)
        for recipe, width in models:
            model = fitted(recipe, width, parts, plan.settings(seed))
            for samples, values in ((parts.validation, validation), (parts.test, test)):
                mean = -math.inf if model is None else mean_log_prob(cast("Flow", model), samples)
                values[recipe.name].append(mean)
        shown = ", ".join(f"{name} {values[-1]:.3f}" for name, values in validation.items())
        print(f"{time.monotonic() - begun:.0f} s: seed {seed}, validation: {shown}", flush=True)
    torch.set_num_threads(threads)

    sizes = {recipe.name: parameters(recipe.make(len(COLUMNS), width)) for recipe, width in models}
    pairs = plan.pairs()
    differences = {pair.theirs.name: compare(pair, test) for pair in pairs}
    verdicts = [other.verdict for other in differences.values()]
    figures = {
        "plan": asdict(plan),
        "columns": COLUMNS,
        "parameters": sizes,
        "validation_nats": without_infinities(validation),
        "test_nats": without_infinities(test),
        "pairs": {name: {**asdict(other), "verdict": other.verdict} for name, other in differences.items()},
        "tally": tally(verdicts),
        "seconds": round(time.monotonic() - begun),
    }
    failures = [f"worse than {name}" for name, other in differences.items() if other.verdict == "worse"]
    code = report("tabular", figures, [] if options.quick else failures, options.out)
    print(f"\nTest log-likelihood in nats, mean and standard error of {plan.seeds} splits\n")
    lines = []
    for recipe, _ in models:
        found = difference(test[recipe.name])
        other = differences.get(recipe.name)
        paired = "" if other is None else str(other)
        shown = f"{found.mean:.3f} ± {found.error:.3f}"
        lines.append([recipe.family, recipe.library, str(sizes[recipe.name]), shown, paired])
    print(table(["family", "library", "parameters", "test", "ours minus theirs, paired"], lines))
    print(f"\n{tally(verdicts)}")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
