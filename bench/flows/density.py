"""Two-dimensional targets of known density: our recipes beside zuko and normflows, KL divergence in nats.

Within a target and a seed all flows get the same samples and the same training; a pair has the same size.
The densities are known, so the divergence on fresh samples is absolute: 0 is perfect.
"""

import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import cast

import torch
from torch import Tensor, nn

from bench.flows.models import Pair, Recipe, pairs
from bench.report import Report, Table
from flows import Flow
from training.density.fit import DensityFitError, FitSettings, fit
from training.density.targets import TARGETS, Target


@dataclass(frozen=True)
class Plan:
    """Amount of computation: samples, optimiser steps, seeds, and layers of coupling flows and of MAF."""

    train: int = 50_000
    validation: int = 3_000
    test: int = 20_000
    steps: int = 1_000
    seeds: int = 2
    targets: tuple[str, ...] = tuple(TARGETS)
    affine: int = 6
    spline: int = 4
    autoregressive: int = 4

    def pairs(self) -> list[Pair]:
        """Ours with each other library's, family by family."""
        sizes = {
            "affine coupling": (self.affine, 48),
            "spline coupling": (self.spline, 34),
            "MAF": (self.autoregressive, 48),
        }
        return pairs(2, sizes)

    def models(self) -> dict[str, tuple[Recipe, int]]:
        """Every flow that is fitted, with its width, by name."""
        found = {}
        for pair in self.pairs():
            found[pair.ours.name] = (pair.ours, pair.width)
            found[pair.theirs.name] = (pair.theirs, pair.their_width)
        return found


QUICK = Plan(2_000, 500, 1_000, steps=5, targets=("checkerboard",), affine=2, spline=2, autoregressive=2)


@dataclass(frozen=True)
class Samples:
    """Standardised samples of a target: libraries start near the identity, and splines end at 4 or 5.

    Attributes:
        train, validation, test: (N, 2).
        log_prob: the target's log-density of the standardised test samples, (N,).
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    log_prob: Tensor


def draw(target: Target, plan: Plan, seed: int) -> Samples:
    """Draw samples, in units of the training samples' deviations from their mean."""
    generator = torch.Generator().manual_seed(seed)
    train, validation, test = (target.sample(n, generator) for n in (plan.train, plan.validation, plan.test))
    mean, deviation = train.mean(0), train.std(0)
    # Change of variables: the density of x / d is d times as high.
    log_prob = target.log_prob(test) + deviation.log().sum()
    train, validation, test = ((x - mean) / deviation for x in (train, validation, test))
    return Samples(train, validation, test, log_prob)


@torch.no_grad()
def losses(model: nn.Module, samples: Samples) -> Tensor:
    """log p(x) - log q(x) of every test sample in nats, (N,); the mean estimates KL(p || q)."""
    log_prob = cast("Flow", model).log_prob
    values = torch.cat([log_prob(rows) for rows in torch.split(samples.test, 2_000)])
    return samples.log_prob.double() - values.double()


def fitted_losses(recipe: Recipe, width: int, samples: Samples, plan: Plan, seed: int) -> Tensor:
    """Fit a flow and return its `losses`; inf everywhere if the fit failed."""
    torch.manual_seed(seed)
    model = recipe.make(2, width)
    settings = FitSettings(steps=plan.steps, learning_rate=2e-3, seed=seed)
    try:
        # Another library's model has the one method that the fit calls.
        fit(cast("Flow", model), samples.train, samples.validation, settings)
    except DensityFitError:
        return torch.full_like(samples.log_prob, math.inf, dtype=torch.float64)
    return losses(model, samples)


@dataclass(frozen=True)
class Difference:
    """By how many nats ours is better, over the seeds, with the standard error of that mean."""

    mean: float
    error: float

    @property
    def verdict(self) -> str:
        """Within two standard errors of 0 the two are equal."""
        if not math.isfinite(self.mean) or abs(self.mean) > 2 * self.error:
            return "better" if self.mean > 0 else "worse"
        return "equal"

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ± {self.error:.3f} {self.verdict}"


def difference(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Difference:
    """Compare the losses of two flows, one tensor per seed; a fit of ours that failed is worse."""
    if not all(one.isfinite().all() for one in ours):
        return Difference(-math.inf, 0.0)
    if not all(one.isfinite().all() for one in theirs):
        return Difference(math.inf, 0.0)
    paired = [other - one for one, other in zip(ours, theirs, strict=True)]
    means = [one.mean().item() for one in paired]
    # The spread over two or three seeds alone is often far too small by chance: the error of the finite
    # number of test samples is added.
    test = sum(one.var().item() / len(one) for one in paired) / len(paired) ** 2
    return Difference(statistics.fmean(means), math.sqrt(statistics.variance(means) / len(means) + test))


def run(*, quick: bool) -> Report:
    """Fit every flow to every target, on one thread."""
    plan = QUICK if quick else Plan()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found: dict[str, dict[str, list[Tensor]]] = {}
    for target in plan.targets:
        by_name = found.setdefault(target, {name: [] for name in plan.models()})
        for seed in range(plan.seeds):
            samples = draw(TARGETS[target], plan, seed)
            for name, (recipe, width) in plan.models().items():
                by_name[name].append(fitted_losses(recipe, width, samples, plan, seed))
            print(f"{target}, seed {seed} is done", file=sys.stderr, flush=True)
    torch.set_num_threads(threads)
    return _report(plan, found, quick=quick)


def _report(plan: Plan, found: dict[str, dict[str, list[Tensor]]], *, quick: bool) -> Report:
    everyone = plan.pairs()
    differences = {
        (target, pair.theirs.name): difference(by_name[pair.ours.name], by_name[pair.theirs.name])
        for target, by_name in found.items()
        for pair in everyone
    }
    kl = {
        target: {name: [losses.mean().item() for losses in by_seed] for name, by_seed in by_name.items()}
        for target, by_name in found.items()
    }
    names, theirs = list(plan.models()), [pair.theirs.name for pair in everyone]
    means = [[t, *(f"{statistics.fmean(kl[t][name]):.3f}" for name in names)] for t in kl]
    compared = [[t, *(str(differences[t, name]) for name in theirs)] for t in kl]
    verdicts = [one.verdict for one in differences.values()]
    worse = verdicts.count("worse")
    counts = ", ".join(f"{verdicts.count(name)} {name}" for name in ("better", "equal", "worse"))
    tally = f"of {len(verdicts)} pairs: {counts}"
    return Report(
        "density",
        {name: value for name, value in asdict(plan).items() if name != "targets"},
        [
            Table(f"KL(target || model) in nats, mean of {plan.seeds} seeds", ["target", *names], means),
            Table("Theirs minus ours in nats, with its standard error", ["target", *theirs], compared),
        ],
        notes=[tally],
        failures=[tally] if 2 * worse > len(verdicts) and not quick else [],
        figures={
            "kl_nats": kl,
            "pairs": {f"{t}: {name}": str(one) for (t, name), one in differences.items()},
        },
    )
