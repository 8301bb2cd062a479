"""KL divergence in nats from two-dimensional targets, beside zuko and normflows.

For each target and seed all flows get the same samples and the same training. The flows of a pair have the
same size. The target densities are known, so the divergence on fresh samples is absolute: 0 is perfect.
"""

import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from bench.flows.models import MODELS, OURS
from bench.report import Report, Table
from flows import Flow
from training.density.fit import DensityFitError, FitSettings, fit
from training.density.targets import TARGETS, Target

_SEEDS = 2
# Numbers of training, validation and test samples, and of optimiser steps.
_SIZES, _QUICK = (50_000, 3_000, 20_000, 1_000), (2_000, 500, 1_000, 5)


@dataclass(frozen=True)
class Samples:
    """Standardised samples of a target.

    Libraries start near the identity, and their splines end at 4 or 5.

    Attributes:
        train, validation, test: (N, 2).
        log_prob: the target's log-density of the standardised test samples, (N,).
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    log_prob: Tensor


def draw_samples(target: Target, sizes: Sequence[int], seed: int) -> Samples:
    """Draw samples and standardise them by the training samples' mean and deviation."""
    generator = torch.Generator().manual_seed(seed)
    train, validation, test = (target.sample(n, generator) for n in sizes)
    mean, deviation = train.mean(0), train.std(0)
    # Change of variables: the density of x / d is d times as high.
    log_prob = target.log_prob(test) + deviation.log().sum()
    train, validation, test = ((x - mean) / deviation for x in (train, validation, test))
    return Samples(train, validation, test, log_prob)


@torch.no_grad()
def losses(model: nn.Module, samples: Samples) -> Tensor:
    """Return log p(x) - log q(x) in nats of every test sample, (N,).

    The mean estimates KL(p || q).
    """
    log_prob = cast("Flow", model).log_prob
    values = torch.cat([log_prob(rows) for rows in torch.split(samples.test, 2_000)])
    return samples.log_prob.double() - values.double()


def fitted_losses(model: nn.Module, samples: Samples, steps: int, seed: int) -> Tensor:
    """Fit a flow and return its `losses`, all infinite if the fit failed."""
    settings = FitSettings(steps=steps, learning_rate=2e-3, seed=seed)
    try:
        # The fit calls only log_prob, which another library's model has too.
        fit(cast("Flow", model), samples.train, samples.validation, settings)
    except DensityFitError:
        return torch.full_like(samples.log_prob, math.inf, dtype=torch.float64)
    return losses(model, samples)


def compare(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> tuple[str, str]:
    """Describe by how many nats ours is better, and decide: "better", "equal" or "worse".

    Equal means within two standard errors.

    Args:
        ours: losses of our flow, one tensor per seed; infinite if its fit failed.
        theirs: losses of another library's flow.
    """
    if not all(one.isfinite().all() for one in ours):
        return "ours failed", "worse"
    if not all(one.isfinite().all() for one in theirs):
        return "theirs failed", "better"
    paired = [other - one for one, other in zip(ours, theirs, strict=True)]
    means = [one.mean().item() for one in paired]
    mean = statistics.fmean(means)
    # The spread of two seeds is often far too small by chance, so add the error of the finite test set.
    test = sum(one.var().item() / len(one) for one in paired) / len(paired) ** 2
    error = math.sqrt(statistics.variance(means) / len(means) + test)
    verdict = "equal" if abs(mean) <= 2 * error else "better" if mean > 0 else "worse"
    return f"{mean:+.3f} ± {error:.3f} {verdict}", verdict


def run(*, quick: bool) -> Report:
    """Fit every flow to every target, on one thread, and report the divergences."""
    *sizes, steps = _QUICK if quick else _SIZES
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    names = [f"{family}, {library}" for family, makers in MODELS.items() for library in makers]
    report = Report("density", {"steps": steps, "seeds": _SEEDS})
    rows, compared, verdicts = [], [], []
    for target in list(TARGETS)[:1] if quick else TARGETS:
        found: dict[str, list[Tensor]] = {name: [] for name in names}
        for seed in range(_SEEDS):
            samples = draw_samples(TARGETS[target], sizes, seed)
            for name in names:
                family, library = name.split(", ")
                torch.manual_seed(seed)
                found[name].append(fitted_losses(MODELS[family][library](), samples, steps, seed))
        kl = {name: [one.mean().item() for one in by_seed] for name, by_seed in found.items()}
        pairs = {
            name: compare(found[f"{name.split(', ')[0]}, {OURS}"], found[name])
            for name in names
            if not name.endswith(OURS)
        }
        rows.append([target, *(f"{statistics.fmean(kl[name]):.3f}" for name in names)])
        compared.append([target, *(text for text, _ in pairs.values())])
        verdicts += [verdict for _, verdict in pairs.values()]
        report.figures[target] = {"kl_nats": kl, "pairs": pairs}
        print(f"{target} is done", file=sys.stderr, flush=True)
    torch.set_num_threads(threads)
    theirs = [name for name in names if not name.endswith(OURS)]
    report.tables = [
        Table(f"KL(target || model) in nats, mean of {_SEEDS} seeds", ["target", *names], rows),
        Table("Theirs minus ours in nats, with its standard error", ["target", *theirs], compared),
    ]
    counts = ", ".join(f"{verdicts.count(name)} {name}" for name in ("better", "equal", "worse"))
    report.notes.append(f"of {len(verdicts)} pairs: {counts}")
    if 2 * verdicts.count("worse") > len(verdicts) and not quick:
        report.failures.append("ours is worse in most pairs")
    return report
