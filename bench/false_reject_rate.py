"""Does the shipped calibration keep its promise? Refit with several seeds, count false rejects over HTTP.

For each seed the good pictures are split anew, the flows are fitted, thresholds set and the model served;
every good test picture is posted, and the share with p <= alpha is held against the band in which a correct
split conformal calibration stays in 99 % of cases. Prints the image AUROC and the time of each seed as well.

    flowgauge data elpv
    python -m bench.false_reject_rate --data datasets/elpv --category solar_cell

Stopped and started again it continues. Two cores need about five minutes a seed. It fails where more seeds
have a rate outside its band than chance puts there about once in a hundred times.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

from scipy.stats import binom

from examples.children import run, serving_here
from flows.fastflow.bundle import read_manifest
from flows.fastflow.conformal import false_reject_band
from flows.fastflow.models_folder import resolve
from training.datasets.layout import test_samples

ALPHAS = (0.01, 0.05, 0.10)


def main() -> int:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--category", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("bench-results/false_reject_rate"))
    options = parser.parse_args()
    good = [s.path for s in test_samples(options.data, options.category) if s.defect is None]
    aurocs, seconds, outside, astray = [], [], 0, 0
    lines = []
    for seed in options.seeds:
        folder = options.out / str(seed)
        which = ("--data", str(options.data), "--category", options.category)
        models = ("--models", str(folder / "models"))
        begun = time.monotonic()
        run(
            "train", *which, *models, "--runs", str(options.out / "runs"), "--resume",
            "--seed", str(seed), "--threads", str(options.threads),
        )  # fmt: skip
        seconds.append(time.monotonic() - begun)
        run("evaluate", *which, *models, "--out", str(folder))
        bundle = resolve(folder / "models", options.category)
        summary = json.loads((folder / options.category / bundle.name / "summary.json").read_text())
        aurocs.append(summary["image_auroc"])
        p_values = _p_values(folder / "models", options.category, good)
        n = read_manifest(bundle).data.n_calibration
        cells, before = [], outside
        for alpha in ALPHAS:
            rejected = sum(p <= alpha for p in p_values)
            low, high = false_reject_band(n, len(good), alpha)
            inside = low <= rejected <= high
            outside += not inside
            cells.append(f"{rejected / len(good):.2%} [{low}..{high}]{'' if inside else ' OUTSIDE'}")
        astray += outside > before
        lines.append(f"| {seed} | {aurocs[-1]:.4f} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    print(f"\n{options.category}: {len(good)} good test pictures; false rejects [99 % band, in pictures]\n")
    print("| seed | image AUROC | " + " | ".join(f"{alpha:.0%}" for alpha in ALPHAS) + " |")
    print("|---" * (2 + len(ALPHAS)) + "|")
    print("\n".join(lines))
    print(f"\nmean image AUROC {statistics.mean(aurocs):.4f}")
    print(f"training {statistics.median(seconds):.0f} s a seed, less where reused")
    print(f"{outside} of {len(lines) * len(ALPHAS)} rates outside their band")
    return int(is_broken(astray, len(lines)))


def is_broken(astray: int, seeds: int) -> bool:
    """Whether chance hardly puts so many seeds outside a 99 % band: once in a hundred times.

    Of independent seeds; that all of them are tested on the same pictures makes it a little more often.

    Args:
        astray: seeds with at least one rate outside; of a correct calibration at most 1 % a rate.
        seeds: of the benchmark.
    """
    return bool(binom.sf(astray - 1, seeds, 0.01 * len(ALPHAS)) < 0.01)


def _p_values(models: Path, category: str, pictures: list[Path]) -> list[float]:
    with serving_here(models) as client:
        answers = [
            client.post(f"/v1/models/{category}/predict", content=path.read_bytes()) for path in pictures
        ]
    return [float(answer.raise_for_status().json()["p_value"]) for answer in answers]


if __name__ == "__main__":
    sys.exit(main())
