"""Is a digit of a class that was never seen strange to the flow, and are pictures that are no digits at all?

    python -m bench.flows.outliers          minutes; --quick for a look at whether it runs

Each class is left out once: a Glow learns the nine others, and the AUROC is given of the class that was left
out against held-out digits of the nine, by the negative log-likelihood and by the remedies of
`training.density.outliers`; below 0.5 the strange ones pass for more ordinary than real digits. The same for
simple pictures, means over the ten flows: the likelihood is known to fail there, and each remedy fails
somewhere else. All is printed as it comes out; nothing is chosen by these figures, and the rate of
perturbation is the middle of its paper's range.
"""

import argparse
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from bench.service.figures import Figures, report
from flows import Flow
from flows.recipes import glow
from training.density.fit import FitSettings, fit
from training.density.outliers import (
    auroc,
    complexity_ratio,
    latent_surprise,
    likelihood_ratio,
    negative_log_likelihood,
    perturbed,
    typicality,
)
from training.density.pictures import Pictures, digits

_RATE = 0.2
_LEAST_MEAN = 0.5  # AUROC of the left-out classes by the likelihood: more than a coin


def leave_out(data: Pictures, label: int, settings: FitSettings) -> dict[str, dict[str, float]]:
    """Learn nine classes.

    Returns:
        AUROC by what is strange ("class 3", "blank", ...) and by score.
    """
    labels = data.labels
    if labels is None:
        raise ValueError("leaving a class out needs labels")
    train = data.train[labels.train != label]
    validation = data.validation[labels.validation != label]
    ordinary = data.test[labels.test != label]
    # None of them has been seen, so all of the class can be asked for.
    left_out = torch.cat(
        [
            data.train[labels.train == label],
            data.validation[labels.validation == label],
            data.test[labels.test == label],
        ]
    )
    generator = torch.Generator().manual_seed(settings.seed)
    flow = _fitted(data, train, validation, settings)
    noisy = [
        perturbed(part, data.levels, _RATE, generator=generator)
        for part in (train.repeat(4, 1, 1, 1), validation)
    ]
    background = _fitted(data, noisy[0], noisy[1], settings)

    def all_scores(x: Tensor) -> dict[str, Tensor]:
        return scores(flow, background, x, validation, data.levels)

    reference = all_scores(ordinary)
    found: dict[str, dict[str, float]] = {}
    strange = {f"class {label}": left_out, **simple_pictures(ordinary, data.levels, generator)}
    for name, pictures in strange.items():
        theirs = all_scores(pictures)
        found[name] = {score: auroc(reference[score], theirs[score]) for score in reference}
    return found


def scores(flow: Flow, background: Flow, x: Tensor, held_out: Tensor, levels: int) -> dict[str, Tensor]:
    """Every score of pictures, each (N,), by name.

    Args:
        flow: fitted.
        background: fitted to perturbed pictures.
        x: (N, 1, H, W), integers.
        held_out: pictures of the training's kind, on which the flow was not trained, for typicality.
        levels: of the integers.
    """
    likelihood = negative_log_likelihood(flow, x)
    surprise = latent_surprise(flow, x)
    return {
        "likelihood": likelihood,
        "typicality": typicality(likelihood, negative_log_likelihood(flow, held_out, seed=1)),
        "latents": surprise,
        "latents' typicality": typicality(surprise, latent_surprise(flow, held_out, seed=1)),
        "ratio to background": likelihood_ratio(likelihood, negative_log_likelihood(background, x)),
        "ratio to PNG": complexity_ratio(likelihood, x, levels),
    }


def simple_pictures(real: Tensor, levels: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Pictures that are no digits, (N, 1, H, W) each, by name."""
    smooth = torch.nn.functional.avg_pool2d(real, 3, stride=1, padding=1)
    smoother = torch.nn.functional.avg_pool2d(smooth, 3, stride=1, padding=1)
    lower = real[:, :, real.shape[2] // 2 :]
    grey = torch.randint(levels, (len(real), 1, 1, 1), generator=generator).to(real)
    return {
        "blank": torch.zeros_like(real),
        "one grey": grey.expand_as(real).contiguous(),
        "smoothed": smoother.round(),
        "half contrast": (real / 2).round(),
        "faint": (real / 4).round(),
        "lower half erased": torch.cat([real[:, :, : real.shape[2] // 2], torch.zeros_like(lower)], 2),
        "upside down": real.flip(2),
        "uniform noise": torch.randint(levels, real.shape, generator=generator).to(real),
    }


def _fitted(data: Pictures, train: Tensor, validation: Tensor, settings: FitSettings) -> Flow:
    torch.manual_seed(settings.seed)
    flow = glow(data.shape, steps=4, hidden=32, levels=data.levels, alpha=0.01)
    fit(flow, train, validation, settings)
    return flow


def table(found: dict[str, dict[str, float]]) -> list[str]:
    """Lines of a Markdown table: what is strange by score."""
    columns = list(next(iter(found.values())))
    lines = [f"| strange | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    lines += [f"| {name} | {' | '.join(f'{row[c]:.3f}' for c in columns)} |" for name, row in found.items()]
    return lines


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--quick", action="store_true", help="two classes, a few steps: does it run?")
    parser.add_argument("--out", type=Path, default=Path("bench-results/flows"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps, classes = (12, range(2)) if options.quick else (options.steps, range(10))
    settings = FitSettings(steps=steps, batch_size=128, learning_rate=4e-3, every=max(1, min(50, steps // 4)))
    data = digits()
    begun = time.monotonic()
    by_class: dict[str, dict[str, float]] = {}
    simple: dict[str, list[dict[str, float]]] = {}
    for label in classes:
        found = leave_out(data, label, replace(settings, seed=label))
        by_class[f"class {label}"] = found.pop(f"class {label}")
        for name, row in found.items():
            simple.setdefault(name, []).append(row)
        print(f"class {label}: {by_class[f'class {label}']['likelihood']:.3f}", flush=True)
    by_class["mean of the classes"] = _mean(list(by_class.values()))
    rows = by_class | {name: _mean(each) for name, each in simple.items()}
    lines = table(rows)
    print("\n".join(lines), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "outliers.md").write_text("\n".join(lines) + "\n")
    figures: Figures = {
        "auroc": {name: {score: round(v, 4) for score, v in row.items()} for name, row in rows.items()},
        "steps": steps,
        "minutes": round((time.monotonic() - begun) / 60, 1),
    }
    mean = rows["mean of the classes"]["likelihood"]
    failures = [] if mean > _LEAST_MEAN else [f"the mean AUROC of the left-out classes is {mean:.3f}"]
    return report("outliers", figures, [] if options.quick else failures, options.out)


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {score: statistics.mean(row[score] for row in rows) for score in rows[0]}


if __name__ == "__main__":
    sys.exit(main())
