"""Do reduced engines see what float32 sees? Every engine against the reference, torch in float32.

    python -m bench.engines --set DATA CATEGORY MODELS [--set ...] [--engines NAME ...]

Every engine scores the good pictures that the model's fit never saw, which set its threshold at the model's
own rate, and the test pictures. Told are image and pixel AUROC and how they differ from the reference's, the
share of test pictures that both decide alike, each at its own threshold, and the largest relative difference
of a score. Writes bench-results/engines.json and .md.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from bench.flows.comparison import table
from bench.inference import engines
from bench.inference.report import where
from flows.fastflow.calibration import Calibrator
from flows.fastflow.detector import Detector
from flows.fastflow.images import read
from flows.fastflow.models_folder import resolve
from flows.fastflow.scorer import Scorer
from training.calibrate import calibrate
from training.config import load_config
from training.datasets.layout import test_samples
from training.datasets.sample import Sample
from training.measurement import Measurement
from training.pictures import gather
from training.progress import ConsoleProgress

REFERENCE = "torch-float32"
_RESULTS = Path("bench-results")


@dataclass(frozen=True)
class Seen:
    """What an engine says of a test set.

    Attributes:
        scores: of the test pictures.
        rejected: whether each is above the engine's threshold.
        image_auroc: of the scores.
        pixel_auroc: of the maps; None where no defect has a mask.
        certified: whether its threshold keeps the rate that was asked for.
        n_calibration: good pictures that set it.
    """

    scores: list[float]
    rejected: list[bool]
    image_auroc: float | None
    pixel_auroc: float | None
    certified: bool
    n_calibration: int


@dataclass(frozen=True)
class Agreement:
    """An engine against the reference, on one category."""

    category: str
    engine: str
    pictures: int
    image_auroc: float | None
    image_difference: float | None
    pixel_auroc: float | None
    pixel_difference: float | None
    agreement: float
    largest_difference: float
    certified: bool
    n_calibration: int

    @property
    def row(self) -> list[str]:
        """A line of the table."""
        return [
            self.category,
            self.engine,
            f"{_figure(self.image_auroc)} ({_signed(self.image_difference)})",
            f"{_figure(self.pixel_auroc)} ({_signed(self.pixel_difference)})",
            f"{self.agreement:.2%} of {self.pictures}",
            f"{self.largest_difference:.2e}",
            f"{'certified' if self.certified else 'not certified'} by {self.n_calibration}",
        ]


def main() -> None:
    """Score, compare and print, a category at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--set", nargs=3, action="append", required=True, metavar=("DATA", "CATEGORY", "MODELS")
    )
    parser.add_argument("--engines", nargs="+", default=list(engines.OURS), choices=engines.OURS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=_RESULTS)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    names = [REFERENCE, *(name for name in options.engines if name != REFERENCE)]
    found: list[Agreement] = []
    for data, category, models in options.set:
        seen = {name: look(Path(data), category, Path(models), name, options.device) for name in names}
        found += [agreement(category, name, one, seen[REFERENCE]) for name, one in seen.items()]
    text = report(found)
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "engines.md").write_text(text)
    record = {"where": where(), "threads": options.threads, "found": [asdict(one) for one in found]}
    (options.out / "engines.json").write_text(json.dumps(record, indent=1) + "\n")


def look(data: Path, category: str, models: Path, engine: str, device: str = "cpu") -> Seen:
    """Calibrate an engine of the active version and let it score the test pictures.

    Raises:
        BundleError, DatasetError, ImageError: the model or pictures cannot be read; they are named.
        ValueError: the data folder is not what the model was trained on.
    """
    bundle = resolve(models, category)
    detector = Detector.load(bundle, device=device)
    pictures = gather(load_config(bundle / "report" / "config.yaml"), data, category)
    if pictures.record.fingerprint != detector.manifest.data.fingerprint:
        raise ValueError(
            f"the good pictures of {category} in {data} are not those that {bundle.name} was trained on: "
            "which of them its fit has not seen cannot be told"
        )
    scorer = engines.scorer(detector, engine)
    asked = detector.calibrator.target_fpr
    console = Console(stderr=True)
    progress = ConsoleProgress(console)
    held_out = pictures.pinned_held_out
    with progress.stage(f"{category}, {engine}: calibrate", len(held_out)) as advance:
        calibrated = calibrate(scorer, held_out, asked, advance, detector.manifest.sample_bits)
    limit = Calibrator(calibrated.calibration, asked, identifier=engine).threshold
    samples = test_samples(data, category)
    with progress.stage(f"{category}, {engine}: test", len(samples)) as advance, Measurement() as measured:
        scores = []
        for sample in samples:
            scores.append(_add(measured, scorer, sample, detector.manifest.sample_bits))
            advance(1)
        figures = measured.figures()
    return Seen(
        scores,
        [score > limit.reject for score in scores],
        figures.image_auroc,
        None if figures.pixels is None else figures.pixels.auroc,
        limit.certified,
        limit.n_calibration,
    )


def _add(measured: Measurement, scorer: Scorer, sample: Sample, sample_bits: int) -> float:
    image = read(sample.path, sample_bits=sample_bits)
    [scored] = scorer.score([image])
    measured.add(sample, (image.shape[0], image.shape[1]), scored.score, scored.score_map)
    return scored.score


def agreement(category: str, engine: str, seen: Seen, reference: Seen) -> Agreement:
    """Compare what an engine says with what the reference says of the same pictures.

    Raises:
        ValueError: they are of different numbers of pictures, or of none.
    """
    if not seen.scores or len(seen.scores) != len(reference.scores):
        raise ValueError(f"expected the same pictures; got {len(seen.scores)} and {len(reference.scores)}")
    alike = [a == b for a, b in zip(seen.rejected, reference.rejected, strict=True)]
    return Agreement(
        category,
        engine,
        len(alike),
        seen.image_auroc,
        _difference(seen.image_auroc, reference.image_auroc),
        seen.pixel_auroc,
        _difference(seen.pixel_auroc, reference.pixel_auroc),
        sum(alike) / len(alike),
        max(abs(a - b) / abs(b) for a, b in zip(seen.scores, reference.scores, strict=True)),
        seen.certified,
        seen.n_calibration,
    )


def report(found: Sequence[Agreement]) -> str:
    """All categories, and of each engine the mean differences and the least agreement."""
    header = ["category", "engine", "image AUROC", "pixel AUROC", "decided alike", "score", "threshold"]
    lines = [table(header, [one.row for one in found]), ""]
    for engine in dict.fromkeys(one.engine for one in found if one.engine != REFERENCE):
        mine = [one for one in found if one.engine == engine]
        image = [one.image_difference for one in mine if one.image_difference is not None]
        pixel = [one.pixel_difference for one in mine if one.pixel_difference is not None]
        alike = statistics.fmean(one.agreement for one in mine)
        lines.append(
            f"- {engine}: image AUROC {_signed(_mean(image))} and pixel AUROC {_signed(_mean(pixel))} in the "
            f"mean; {alike:.2%} decided alike, {min(one.agreement for one in mine):.2%} at least"
        )
    return "\n".join(lines) + "\n"


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f}"


if __name__ == "__main__":
    main()
