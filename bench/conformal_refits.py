"""Does calibration keep its promise? Refits with several seeds: split and cross, few pictures, two engines.

For each seed the good training pictures are divided anew, heads are fitted, each engine is calibrated by its
own scores, and every good test picture is scored. At 1, 5 and 10 % the share rejected is held against what is
promised: of split conformal calibration the band in which 99 % of calibrations stay, of cross-conformal
calibration the bound of about twice the rate, which the mean over seeds must not exceed.

    flowgauge data elpv
    python -m bench.conformal_refits --data datasets/elpv --category solar_cell

Features are computed once per engine and kept, so that a seed costs the flows alone; few epochs suffice,
since the promise holds of whatever was fitted, and are the default here (figures of accuracy come from
elsewhere). The same by HTTP, with the shipped settings: `python -m bench.false_reject_rate`. Stopped and
started again it continues.
"""

import os

# As the front door does; torch's OpenMP reads it when it is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

import argparse
import hashlib
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from flowgauge import keep_freed_memory
from flows.fastflow.backbones import find_weights
from flows.fastflow.calibration import Calibrator, Measurement, calibrate, measure
from flows.fastflow.conformal import false_reject_band
from flows.fastflow.detector import pick_device
from flows.fastflow.engines import pick_engine
from flows.fastflow.features import FeatureExtractor
from flows.fastflow.head import computing
from flows.fastflow.manifest import Precision
from flows.fastflow.parts import PARTS
from flows.fastflow.plain_files import file_hashes
from flows.fastflow.scored import Scored
from flows.fastflow.scorer import Scorer
from training.cache_folder import GIB, CacheFolder
from training.config import RunConfig
from training.cross import fit_heads, folds_of, parts_of, scorers
from training.datasets.layout import test_samples, train_images
from training.feature_cache import FeatureCache, Features, View
from training.split import Split, without_copies

ALPHAS = (0.01, 0.05, 0.10)
ENGINES: tuple[Precision, ...] = ("float32", "bfloat16")
FEW = 60
_BATCH = 16


@dataclass(frozen=True)
class Condition:
    """What is refitted: by which method, and with how many of the good training pictures (None: all)."""

    method: str
    pictures: int | None

    def __str__(self) -> str:
        return f"{self.method}, {'all' if self.pictures is None else self.pictures} pictures"


CONDITIONS = tuple(Condition(method, pictures) for pictures in (None, FEW) for method in ("split", "cross"))


@dataclass(frozen=True)
class Result:
    """False rejects of one refit at one rate.

    Attributes:
        condition: as text.
        seed: of the division and the fit.
        engine: that scored the test pictures.
        calibrated_by: the engine whose calibration decided.
        alpha: rate asked for.
        rejected: of the good test pictures.
        promised: the rate that is promised.
        n_calibration: pictures of the calibration.
        seconds: that the refit took, all engines together.
    """

    condition: str
    seed: int
    engine: Precision
    calibrated_by: Precision
    alpha: float
    rejected: int
    promised: float
    n_calibration: int
    seconds: float


class Refits:
    """Refits over cached features.

    Args:
        data: folder with the category in MVTec layout.
        category: its name.
        folder: for features and checkpoints.
        config: of the runs, but for seed, method and engines.
        held: keeps the features from being removed until it is closed.
        engines: that calibrate and score.
    """

    def __init__(
        self,
        data: Path,
        category: str,
        folder: Path,
        config: RunConfig,
        held: ExitStack,
        engines: Sequence[Precision] = ENGINES,
    ) -> None:
        self.device = pick_device(config.device)
        self.folder = folder
        self.config = config
        weights = find_weights(self.config.backbone.name)
        self.extractor = FeatureExtractor(weights, config.backbone.out_indices, config.input_size).to(
            self.device
        )
        if (data / category / PARTS).exists():
            raise ValueError(f"{category} has a {PARTS}, and this benchmark divides pictures, not parts")
        found = train_images(data, category)
        train, hashes = without_copies(found, file_hashes(found))
        test = [sample.path for sample in test_samples(data, category) if sample.defect is None]
        self.n_train, self.n_test = len(train), len(test)
        paths, hashes = [*train, *test], [*hashes, *file_hashes(test)]
        self.features = {engine: self._features(engine, paths, hashes, held) for engine in engines}

    def refit(self, condition: Condition, seed: int) -> list[Result]:
        """Fit, calibrate and test once."""
        begun = time.monotonic()
        config = self.config.model_copy(
            update={
                "seed": seed,
                "calibration": self.config.calibration.model_copy(
                    update={"method": condition.method, "engines": tuple(self.features)}
                ),
            }
        )
        chosen = np.random.default_rng(seed).permutation(self.n_train)[: condition.pictures]
        folds = folds_of(len(chosen), config)
        within = parts_of(len(chosen), folds, config.calibration.fraction, seed)
        parts = [Split(fit=chosen[part.fit], calibration=chosen[part.calibration]) for part in within]
        folder = self.folder / "refit"
        folder.mkdir(parents=True, exist_ok=True)
        asked = [pick_engine(name, self.device) for name in config.calibration.engines]
        heads = fit_heads(
            config,
            self.features["float32"],
            parts,
            device=self.device,
            folder=folder,
            identity="a refit is never continued",
            resume=False,
            on_batch=lambda _: None,
            on_epoch=lambda *_: None,
        )
        engines = scorers(config, self.extractor, heads, asked)
        calibrators = {name: self._calibrator(name, engine, parts) for name, engine in engines.items()}
        results = []
        test = np.arange(self.n_train, self.n_train + self.n_test)
        for name, engine in engines.items():
            found = self._scored(name, engine, test)
            scored = np.array([[c.score(one) for c in calibrators.values()] for one in found])
            for (other, calibrator), scores in zip(calibrators.items(), scored.T, strict=True):
                for alpha in ALPHAS:
                    threshold = calibrator.at(alpha)
                    results.append(
                        Result(
                            condition=str(condition),
                            seed=seed,
                            engine=name,
                            calibrated_by=other,
                            alpha=alpha,
                            rejected=int(np.count_nonzero(scores > threshold.reject)),
                            promised=threshold.achievable_fpr,
                            n_calibration=threshold.n_calibration,
                            seconds=time.monotonic() - begun,
                        )
                    )
        return results

    def _calibrator(self, name: Precision, engine: Scorer, parts: Sequence[Split]) -> Calibrator:
        """As `training.cross.calibrate_engines` does, from features instead of files."""
        measured: list[Measurement] = []
        folds: list[int] = []
        for k, (head, part) in enumerate(zip(engine.heads, parts, strict=True)):
            own = engine.with_heads(head)
            for scored in self._scored(name, own, part.calibration):
                measured.append(measure(scored))
                folds.append(k)
        target = self.config.calibration.target_fpr
        made = calibrate(measured, target, folds if len(parts) > 1 else None)
        return Calibrator(made, target, identifier=name)

    def _scored(self, name: Precision, engine: Scorer, rows: NDArray[np.int64]) -> Iterator[Scored]:
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            maps = [
                torch.from_numpy(array[batch]).to(self.device, memory_format=torch.channels_last)
                for array in self.features[name]
            ]
            yield from engine.score_features(maps)

    def _features(
        self, engine: Precision, paths: Sequence[Path], hashes: Sequence[str], held: ExitStack
    ) -> Features:
        print(f"features of {len(paths)} pictures, {engine} ...", flush=True)
        # A folder for each engine: a cache is not named by what it was computed in.
        cache = FeatureCache(
            CacheFolder(self.folder / "features" / engine, round(self.config.feature_cache.max_gib * GIB)),
            self.extractor,
            [View(path, sha256, i) for i, (path, sha256) in enumerate(zip(paths, hashes, strict=True))],
            input_size=self.config.input_size,
            batch_size=self.config.backbone.batch_size,
            geometry=self.config.geometry,
            sample_bits=self.config.sample_bits,
        )
        with computing(engine, self.device):
            return held.enter_context(cache.features(lambda _: None))


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--category", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=["split", "cross"], help="only this method")
    parser.add_argument("--pictures", choices=["all", "few"], help=f"only with all pictures, or with {FEW}")
    parser.add_argument(
        "--float32-only",
        action="store_true",
        help="leave bfloat16 out, for which a processor that has none takes twelve times as long",
    )
    parser.add_argument("--out", type=Path, default=Path("bench-results/conformal_refits"))
    options = parser.parse_args()
    folder = options.out / options.category
    folder.mkdir(parents=True, exist_ok=True)
    config = RunConfig.model_validate({"fit": {"epochs": options.epochs, "threads": options.threads}})
    engines = ENGINES[:1] if options.float32_only else ENGINES
    # Results of other settings, such as the defaults of another day, are no part of this table.
    settings = hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:12]
    file = folder / f"results-{settings}{'-float32' if options.float32_only else ''}.jsonl"
    results = [Result(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    conditions = [
        one
        for one in CONDITIONS
        if options.only in (None, one.method)
        and options.pictures in (None, "all" if one.pictures is None else "few")
    ]
    done = {(result.condition, result.seed) for result in results}
    with ExitStack() as held:
        refits = Refits(options.data, options.category, folder, config, held, engines)
        for condition, seed in product(conditions, options.seeds):
            if (str(condition), seed) in done:
                continue
            found = refits.refit(condition, seed)
            results += found
            with file.open("a") as lines:
                lines.write("".join(json.dumps(asdict(one)) + "\n" for one in found))
            own = [one for one in found if one.engine == one.calibrated_by]
            rates = ", ".join(
                f"{one.engine} {one.alpha:.0%}: {one.rejected / refits.n_test:.2%}" for one in own
            )
            print(f"{condition}, seed {seed}: {rates} ({found[-1].seconds:.0f} s)", flush=True)
    print(table(results, refits.n_test, options.epochs))


def table(results: Sequence[Result], n_test: int, epochs: int) -> str:
    """The results as a table of Markdown, a line for each condition, engine, calibration and rate."""
    groups = defaultdict(list)
    for one in results:
        groups[one.condition, one.engine, one.calibrated_by, one.alpha].append(one)
    lines = [
        f"\n{n_test} good test pictures, {epochs} epochs; false rejects\n",
        "| condition | engine, calibrated by | asked | mean | least to most | promised on average | kept |",
        "|---|---|---|---|---|---|---|",
    ]
    for (condition, engine, calibrated_by, alpha), group in groups.items():
        rates = [one.rejected / n_test for one in group]
        mean, promised = statistics.mean(rates), statistics.mean(one.promised for one in group)
        if mean <= promised:
            kept = "yes"
        elif len(rates) == 1:
            kept = "one seed does not tell"
        else:
            # Chance leaves a mean of so many seeds a little above what it would be over all of them.
            error = statistics.stdev(rates) / len(rates) ** 0.5
            kept = "within 2 standard errors" if mean <= promised + 2 * error else "NO"
        if condition.startswith("split"):
            bands = [false_reject_band(one.n_calibration, n_test, alpha) for one in group]
            inside = sum(low <= one.rejected <= high for one, (low, high) in zip(group, bands, strict=True))
            kept += f"; {inside} of {len(group)} in their 99 % bands"
        lines.append(
            f"| {condition} | {engine}, {calibrated_by} | {alpha:.0%} | {mean:.2%} | {min(rates):.2%} to "
            f"{max(rates):.2%} | {promised:.2%} | {kept} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
