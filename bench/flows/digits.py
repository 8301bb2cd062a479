"""Our recipes on handwritten digits, next to normflows' models of the same size, split and training.

    python -m bench.flows.digits            minutes; --quick for a look at whether it runs

Trains each of a pair with the same steps, batches, learning rates, preprocessing and choice of the best
weights on the validation split, and prints the bits per dimension of the test split (lower is better;
dequantised, so an upper bound of the bits of the integers), the means and every seed. Writes digits.md,
digits.json and sheets of samples. The exit code is 1 where ours is worse than its pair.

Our recipes' settings, the bins of the splines among them, were tried on the validation split. normflows'
models have the structure of its documentation, and the same learning rate and alpha: those were not tuned for
them.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.flows.models import parameters
from bench.flows.normflows_models import (
    NormflowsDensity,
    nf_glow,
    nf_nice,
    nf_real_nvp,
    nf_spline,
    width_as_large_as,
)
from bench.service.figures import Figures, report
from flows import Compose, Flatten, Flow, Logit, Transform, UniformDequantization
from flows.recipes import glow, neural_spline, nice, real_nvp
from training.density.fit import FitSettings, fit
from training.density.outliers import negative_log_likelihood
from training.density.pictures import Pictures, digits

_ALPHA = 0.01  # of the logit, for every model
_DRAWS = 16  # of the dequantisation's noise
_WORSE = 0.01  # bits per dimension: differences below this are of no use to anyone
_SHEET_ROWS = 8


@dataclass(frozen=True)
class Family:
    """A pair of models.

    Attributes:
        ours: makes our recipe.
        theirs: makes normflows' model of a hidden width.
        most: the widest of theirs to try.
        learning_rate: of both.
    """

    ours: Callable[[], Flow]
    theirs: Callable[[int], NormflowsDensity]
    most: int
    learning_rate: float


def families(data: Pictures) -> dict[str, Family]:
    """The pairs, by name."""
    shape = data.shape
    levels, alpha = data.levels, _ALPHA
    return {
        "NICE": Family(
            lambda: nice(shape, hidden=(128, 128), levels=levels, alpha=alpha),
            lambda hidden: nf_nice(shape, hidden, couplings=4, layers=2),
            512,
            4e-3,
        ),
        "Glow": Family(
            lambda: glow(shape, steps=6, hidden=32, levels=levels, alpha=alpha),
            lambda hidden: nf_glow(shape, hidden, scales=2, steps=6),
            256,
            4e-3,
        ),
        "neural spline": Family(
            lambda: neural_spline(shape, steps=6, hidden=40, bins=4, levels=levels, alpha=alpha),
            lambda hidden: nf_spline(shape, hidden, steps=4),
            512,
            2e-3,
        ),
        "RealNVP": Family(
            lambda: real_nvp(shape, hidden=16, blocks=1, levels=levels, alpha=alpha),
            lambda hidden: nf_real_nvp(shape, hidden, scales=2),
            128,
            4e-3,
        ),
    }


@dataclass(frozen=True)
class Run:
    """One model, trained once.

    Attributes:
        parameters: how many are trained.
        validation: bits per dimension, by which the weights were chosen.
        test: bits per dimension.
        best_step: of the weights that were kept.
        seconds: of the training.
        flow: the model.
    """

    parameters: int
    validation: float
    test: float
    best_step: int
    seconds: float
    flow: Flow


def their_flow(density: NormflowsDensity, data: Pictures) -> Flow:
    """A model of normflows behind the same preprocessing as ours."""
    steps: list[Transform] = [UniformDequantization(data.levels), Logit(_ALPHA)]
    if len(density.event_shape) == 1:
        steps.append(Flatten(data.shape))
    return Flow(Compose(steps), density)


def train(flow: Flow, data: Pictures, settings: FitSettings) -> Run:
    """Fit one model and measure it."""
    begun = time.monotonic()
    points = fit(flow, data.train, data.validation, settings)
    seconds = time.monotonic() - begun
    best = min(points, key=lambda point: point.validation)
    to_bits = 1 / (math.prod(data.shape) * math.log(2))

    def bits(pictures: Tensor) -> float:
        nats = negative_log_likelihood(flow, pictures, draws=_DRAWS)
        return nats.mean().item() * to_bits

    return Run(parameters(flow), bits(data.validation), bits(data.test), best.step, seconds, flow)


def sheet(blocks: list[Tensor], levels: int, scale: int = 6) -> NDArray[np.uint8]:
    """Blocks of pictures side by side, each (N, 1, H, W) with `_SHEET_ROWS` rows; grey, scaled up."""
    drawn = []
    for block in blocks:
        size = block.shape[-1]
        rows = block[: len(block) // _SHEET_ROWS * _SHEET_ROWS, 0].reshape(_SHEET_ROWS, -1, size, size)
        framed = torch.nn.functional.pad(rows, (0, 1, 0, 1), value=(levels - 1) / 2)
        page = framed.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
        drawn.append(torch.nn.functional.pad(page, (0, 4), value=float(levels - 1)))
    pixels = (255 - torch.cat(drawn, 1) * (255 / (levels - 1))).numpy().astype(np.uint8)
    return pixels.repeat(scale, 0).repeat(scale, 1)


class Reader:
    """Says which digit a sample is, or that it is none, by the real digits of the training split.

    A sample is read where its five nearest digits (Euclidean, of the integers) are of one class, and the
    nearest is no farther than that of 95 in 100 validation digits.
    """

    def __init__(self, data: Pictures) -> None:
        if data.labels is None:
            raise ValueError("a reader of digits needs their labels")
        self._digits, self._classes = data.train.flatten(1), data.labels.train
        self._farthest = self._nearest(data.validation)[0][:, 0].quantile(0.95)

    def readable(self, pictures: Tensor) -> tuple[float, int]:
        """The share of pictures, (N, 1, H, W), that it reads, and how many of the ten classes those are."""
        distances, classes = self._nearest(pictures)
        read = (classes == classes[:, :1]).all(1) & (distances[:, 0] <= self._farthest)
        return read.double().mean().item(), len(set(classes[read, 0].tolist()))

    def _nearest(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Distances to the five nearest digits, and their classes, both (N, 5)."""
        distances, rows = torch.cdist(pictures.flatten(1), self._digits).topk(5, largest=False)
        return distances, self._classes[rows]


def compare(
    data: Pictures, base: FitSettings, seeds: int, out: Path, only: str | None = None
) -> tuple[Figures, list[str], list[str]]:
    """Train and measure all pairs, or one of them.

    Returns:
        The figures, the lines of the Markdown table, and what is worse than its pair.
    """
    figures: Figures = {}
    failures: list[str] = []
    lines = [
        "| family | model | parameters | bits, validation | bits, test | by seed | samples read | s |",
        "|---|---|---:|---:|---:|---|---:|---:|",
    ]
    reader = Reader(data)
    share, _ = reader.readable(data.test)
    lines.append(f"| | real test digits | | | | | {share:.0%} | |")
    print("\n".join(lines), flush=True)
    for name, family in families(data).items():
        if only not in (None, name):
            continue
        width = width_as_large_as(family.theirs, parameters(family.ours()), family.most)
        theirs = partial(_their_flow, family, width, data)
        makers: dict[str, Callable[[], Flow]] = {"ours": family.ours, "normflows": theirs}
        means = {}
        for whose, make in makers.items():
            runs = []
            for seed in range(seeds):
                torch.manual_seed(seed)
                settings = replace(base, seed=seed, learning_rate=family.learning_rate)
                runs.append(train(make(), data, settings))
            line, found = _draw(name, whose, runs, reader, data, out)
            means[whose] = found["test"]
            figures[f"{name}, {whose}"] = found
            lines.append(line)
            print(line, flush=True)
        difference = means["ours"] - means["normflows"]
        figures[f"{name}, difference"] = round(difference, 4)
        if not difference <= _WORSE:
            failures.append(f"{name}: ours takes {difference:.3f} bits per dimension more than normflows'")
    return figures, lines, failures


def _their_flow(family: Family, width: int, data: Pictures) -> Flow:
    return their_flow(family.theirs(width), data)


def _draw(
    name: str, whose: str, runs: list[Run], reader: Reader, data: Pictures, out: Path
) -> tuple[str, Figures]:
    """A line of the table and its figures; writes the sheet of the first seed's samples."""
    torch.manual_seed(0)
    flow = runs[0].flow
    with torch.no_grad():
        warm, cool = (flow.sample(500, temperature=temperature) for temperature in (1.0, 0.7))
    (share, classes), (cool_share, _) = reader.readable(warm), reader.readable(cool)
    blocks = [block[:80] for block in (data.test, warm, cool)]
    picture = out / f"digits-{name.lower().replace(' ', '-')}-{whose}.png"
    cv2.imwrite(str(picture), sheet(blocks, data.levels))
    tests = [run.test for run in runs]
    found: Figures = {
        "parameters": runs[0].parameters,
        "validation": round(statistics.mean(run.validation for run in runs), 4),
        "test": round(statistics.mean(tests), 4),
        "test_by_seed": [round(value, 4) for value in tests],
        "best_steps": [run.best_step for run in runs],
        "seconds": round(statistics.mean(run.seconds for run in runs), 1),
        "read": round(share, 3),
        "read_at_temperature_0.7": round(cool_share, 3),
        "classes_read": classes,
    }
    line = (
        f"| {name} | {whose} | {found['parameters']:,} "
        f"| {found['validation']:.3f} | **{found['test']:.3f}** | "
        f"{', '.join(f'{value:.3f}' for value in tests)} | {share:.0%}, {cool_share:.0%} at T = 0.7 | "
        f"{found['seconds']:.0f} |"
    )
    return line, found


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=2)
    data = digits()
    parser.add_argument("--only", choices=list(families(data)), help="one pair")
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it runs")
    parser.add_argument("--out", type=Path, default=Path("bench-results/flows"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    steps, seeds = (12, 1) if options.quick else (options.steps, options.seeds)
    settings = FitSettings(steps=steps, batch_size=128, every=max(1, min(50, steps // 4)))
    begun = time.monotonic()
    figures, lines, failures = compare(data, settings, seeds, options.out, options.only)
    (options.out / "digits.md").write_text("\n".join(lines) + "\n")
    figures |= {"steps": steps, "seeds": seeds, "minutes": round((time.monotonic() - begun) / 60, 1)}
    # A few steps tell nothing about who is better.
    return report("digits", figures, [] if options.quick else failures, options.out)


if __name__ == "__main__":
    sys.exit(main())
