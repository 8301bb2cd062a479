"""Two-dimensional densities: our recipes against zuko and normflows, in nats of KL(target || model).

    python -m bench.flows.two_dimensional            the whole comparison, one thread
    python -m bench.flows.two_dimensional --quick    a few steps, to see that it runs

Within a target and a seed, all flows get the same samples and the same training; a pair has the same size.
The targets' densities are known, so the KL divergence on fresh test samples is absolute: 0 is perfect.
"""

import argparse
import math
import multiprocessing
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from bench.flows.comparison import Difference, difference, table, tally, without_infinities
from bench.flows.models import Pair, Recipe, matched, parameters, recipes
from bench.service.figures import report
from flows import Flow
from training.density.fit import DensityFitError, FitSettings, fit
from training.density.targets import TARGETS, Target

_FEATURES = 2
# Of ours; those of the others follow from them. Planar flows have a depth, and nobody to be compared with.
_WIDTHS = {"affine coupling": 48, "spline coupling": 34, "MAF": 48, "planar": 8}
_OTHERS = ("zuko", "normflows")


@dataclass(frozen=True)
class Plan:
    """How much is computed.

    Attributes:
        train, validation, test: samples.
        steps: of the optimiser.
        seeds: of samples and starts together.
        affine, spline, autoregressive: layers of each family.
    """

    train: int = 50_000
    validation: int = 3_000
    test: int = 20_000
    steps: int = 1_000
    seeds: int = 2
    affine: int = 6
    spline: int = 4
    autoregressive: int = 4
    learning_rate: float = 2e-3

    def pairs(self) -> list[Pair]:
        """Family by family, ours with each other library's."""
        made = self._recipes()
        families = [family for family in _WIDTHS if family != "planar"]
        return [
            matched(_FEATURES, made[family, "flows"], _WIDTHS[family], made[family, other])
            for family in families
            for other in _OTHERS
        ]

    def models(self) -> list[tuple[Recipe, int]]:
        """Every flow that is fitted, with its width, once."""
        pairs = self.pairs()
        ours = {pair.ours.name: (pair.ours, pair.width) for pair in pairs}
        theirs = [(pair.theirs, pair.their_width) for pair in pairs]
        planar = self._recipes()["planar", "flows"]
        return [*ours.values(), *theirs, (planar, _WIDTHS["planar"])]

    def _recipes(self) -> dict[tuple[str, str], Recipe]:
        return recipes(affine=self.affine, spline=self.spline, autoregressive=self.autoregressive)


QUICK = Plan(train=2_000, validation=500, test=1_000, steps=5, affine=2, spline=2, autoregressive=2)


@dataclass(frozen=True)
class Samples:
    """Of one target and seed, standardised: libraries start near the identity, and splines end at 4 or 5.

    Attributes:
        train, validation, test: (N, 2).
        log_prob: the target's log-density of the standardised test samples, (N,).
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    log_prob: Tensor


def draw(target: Target, plan: Plan, seed: int) -> Samples:
    """Samples of a target, in units of the training samples' deviations from their mean."""
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
    model = recipe.make(_FEATURES, width)
    settings = FitSettings(steps=plan.steps, learning_rate=plan.learning_rate, seed=seed)
    try:
        # Another library's model has the one method that the fit calls.
        fit(cast("Flow", model), samples.train, samples.validation, settings)
    except DensityFitError:
        return torch.full_like(samples.log_prob, math.inf, dtype=torch.float64)
    return losses(model, samples)


def measure(task: tuple[str, int, Plan]) -> dict[str, Tensor]:
    """The losses of every flow on one target with one seed, by the flow's name."""
    target, seed, plan = task
    torch.set_num_threads(1)
    samples = draw(TARGETS[target], plan, seed)
    return {recipe.name: fitted_losses(recipe, width, samples, plan, seed) for recipe, width in plan.models()}


def compare(pair: Pair, by_seed: Sequence[dict[str, Tensor]]) -> Difference:
    """A pair's difference on one target, from the losses of each seed."""
    means, errors = [], []
    for losses_of in by_seed:
        ours, theirs = losses_of[pair.ours.name], losses_of[pair.theirs.name]
        if not ours.isfinite().all():  # whatever theirs is
            means.append(-math.inf)
            continue
        paired = theirs - ours
        means.append(paired.mean().item())
        errors.append(paired.std().item() / math.sqrt(len(paired)))
    return difference(means, errors)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison. The exit code is 1 if ours is worse in most pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few steps; figures mean nothing")
    parser.add_argument("--seeds", type=int, help="2 unless given")
    parser.add_argument("--steps", type=int, help="of every fit; 1000 unless given")
    parser.add_argument("--targets", nargs="+", choices=list(TARGETS), default=list(TARGETS), metavar="NAME")
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--out", type=Path, default=Path("bench-results/flows"))
    options = parser.parse_args(arguments)
    plan = QUICK if options.quick else Plan()
    given = {name: value for name in ("seeds", "steps") if (value := getattr(options, name)) is not None}
    plan = Plan(**{**asdict(plan), **given})

    begun = time.monotonic()
    tasks = [(target, seed, plan) for target in options.targets for seed in range(plan.seeds)]
    measured: dict[str, list[dict[str, Tensor]]] = {target: [] for target in options.targets}
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for (target, seed, _), losses_of in zip(tasks, pool.imap(measure, tasks), strict=True):
            measured[target].append(losses_of)
            values = ", ".join(f"{name} {loss.mean():.3f}" for name, loss in losses_of.items())
            print(f"{time.monotonic() - begun:.0f} s: {target}, seed {seed}: {values}", flush=True)

    sizes = {recipe.name: parameters(recipe.make(_FEATURES, width)) for recipe, width in plan.models()}
    kl = {
        target: {name: [losses_of[name].mean().item() for losses_of in by_seed] for name in sizes}
        for target, by_seed in measured.items()
    }
    pairs = plan.pairs()
    found = {
        (target, pair.theirs.name): compare(pair, by_seed)
        for target, by_seed in measured.items()
        for pair in pairs
    }
    verdicts = [result.verdict for result in found.values()]
    figures = {
        "plan": asdict(plan),
        "parameters": sizes,
        "kl_nats": {target: without_infinities(by_name) for target, by_name in kl.items()},
        "pairs": [
            {"target": t, "theirs": name, **asdict(result), "verdict": result.verdict}
            for (t, name), result in found.items()
        ],
        "tally": tally(verdicts),
        "seconds": round(time.monotonic() - begun),
    }
    worse = verdicts.count("worse")
    failures = [tally(verdicts)] if 2 * worse > len(verdicts) and not options.quick else []
    code = report("two_dimensional", figures, failures, options.out)
    print(f"\nKL(target || model) in nats, mean of {plan.seeds} seeds\n")
    means = [[t, *(f"{statistics.fmean(kl[t][name]):.3f}" for name in sizes)] for t in measured]
    print(table(["target", *sizes], [["parameters", *map(str, sizes.values())], *means]))
    print(
        "\nTheirs minus ours in nats, standard error, and whether ours is better by more than two of them\n"
    )
    rows = [[t, *(str(found[t, pair.theirs.name]) for pair in pairs)] for t in measured]
    print(table(["target", *(pair.theirs.name for pair in pairs)], rows))
    print(f"\n{tally(verdicts)}")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
