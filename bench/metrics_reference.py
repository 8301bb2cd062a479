"""Our metrics beside anomalib's (which are torchmetrics' where it has them) on the same maps.

    python -m bench.metrics_reference --anomalib-python /path/to/python
    python -m bench.metrics_reference --anomalib-python /path/to/python --data DIR --category bottle

Maps are made up, or a model's of a category's test pictures. They are brought to 0 ... 1 first: torchmetrics
squashes scores outside by a sigmoid, which ties those that are far out. anomalib takes thresholds of AUPIMO
at even distances, here `--thresholds` of them, ours are all; its memory grows with thresholds times pictures.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from flows.fastflow.detector import Detector
from flows.fastflow.models_folder import resolve
from training.datasets.layout import test_samples
from training.measurement import read_truth
from training.metrics import image_auroc, image_average_precision, image_f1_max, pixel_figures

ALLOWED = 1e-4


class Scored(NamedTuple):
    """Pictures that were scored, and the truth."""

    maps: NDArray[np.float32]  # (N, H, W)
    masks: NDArray[np.bool_]  # (N, H, W)
    scores: NDArray[np.float64]  # (N,)
    truth: NDArray[np.bool_]  # (N,)


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 if a figure is further off than 1e-4."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--anomalib-python", required=True, help="an interpreter that has anomalib")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--category", action="append", default=[])
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--pictures", type=int, default=40, help="of each set at most, evenly chosen")
    parser.add_argument("--thresholds", type=int, default=300_000, help="of anomalib's AUPIMO")
    options = parser.parse_args(arguments)
    sets = {"noise": made_up(0, options.pictures), "heavy tail": made_up(1, options.pictures, tail=1.5)}
    for category in options.category:
        sets[category] = of_model(options.data, category, options.models, options.pictures)
    worst = 0.0
    for name, scored in sets.items():
        print(f"{name}: {len(scored.maps)} maps of {scored.maps.shape[1]}x{scored.maps.shape[2]}")
        here, there = measure(scored), by_anomalib(scored, options.anomalib_python, options.thresholds)
        for metric, value in here.items():
            difference = abs(value - there[metric])
            worst = max(worst, difference)
            print(f"  {metric:<12} {value:.6f}  anomalib {there[metric]:.6f}  difference {difference:.1e}")
    print(f"largest difference {worst:.1e}, allowed {ALLOWED:.0e}")
    return int(worst > ALLOWED)


def made_up(seed: int, pictures: int, *, tail: float = 0.0, size: int = 256) -> Scored:
    """Smooth noise, higher on ellipses in every second picture; with a tail, its exponential."""
    rng = np.random.default_rng(seed)
    maps, masks = [], []
    for i in range(pictures):
        mask = np.zeros((size, size), dtype=np.uint8)
        for _ in range(i % 2 * int(rng.integers(1, 4))):
            x, y, a, b = rng.integers(0, size), rng.integers(0, size), *rng.integers(2, size // 8, 2)
            cv2.ellipse(mask, (int(x), int(y)), (int(a), int(b)), float(rng.uniform(0, 180)), 0, 360, 1, -1)
        noise = cv2.GaussianBlur(rng.normal(size=(size, size)), (0, 0), 2) * 6
        raised = noise + rng.uniform(1, 6) * cv2.GaussianBlur(mask.astype(np.float64), (0, 0), 3)
        maps.append(np.exp(tail * raised) if tail else raised)
        masks.append(mask > 0)
    stacked = np.stack(maps)
    return _inside(stacked, np.stack(masks), stacked.max((1, 2)), np.array([m.any() for m in masks]))


def of_model(data: Path, category: str, models: Path, pictures: int) -> Scored:
    """What a category's active model says of its test pictures, of those whose pixels are known."""
    from flows.fastflow.images import read

    detector = Detector.load(resolve(models, category), device="cpu")
    known = [s for s in test_samples(data, category) if s.defect is None or s.mask is not None]
    chosen = [known[i] for i in np.unique(np.linspace(0, len(known) - 1, pictures).astype(int))]
    maps, masks, scores = [], [], []
    for sample in chosen:
        image = read(sample.path, sample_bits=detector.manifest.sample_bits)
        [prediction] = detector.predict([image])
        maps.append(prediction.score_map)
        masks.append(read_truth(sample, (image.shape[0], image.shape[1]), prediction.score_map.shape))
        scores.append(prediction.score)
    return _inside(
        np.stack(maps), np.stack(masks), np.array(scores), np.array([s.defect is not None for s in chosen])
    )


def _inside(
    maps: NDArray[np.floating],
    masks: NDArray[np.bool_],
    scores: NDArray[np.floating],
    truth: NDArray[np.bool_],
) -> Scored:
    """Scores brought to 0 ... 1, as torchmetrics wants them."""

    def scaled(values: NDArray[np.floating]) -> NDArray[np.float64]:
        values = values.astype(np.float64)
        return np.asarray((values - values.min()) / (values.max() - values.min()))

    return Scored(scaled(maps).astype(np.float32), masks, scaled(scores), truth)


def measure(scored: Scored) -> dict[str, float]:
    """Our figures."""
    truth, scores = scored.truth.tolist(), scored.scores.tolist()
    pixels = pixel_figures(list(scored.maps), list(scored.masks))
    if pixels.aupimo is None:
        raise ValueError("AUPIMO needs more good pictures: raise --pictures")
    return {
        "image AUROC": image_auroc(truth, scores),
        "image AP": image_average_precision(truth, scores),
        "image F1-max": image_f1_max(truth, scores).value,
        "pixel AUROC": pixels.auroc,
        "pixel AP": pixels.average_precision,
        "pixel F1-max": pixels.f1_max.value,
        **{f"AUPRO {limit:g}": value for limit, value in pixels.aupro.items()},
        "AUPIMO": pixels.aupimo,
    }


def by_anomalib(scored: Scored, python: str, thresholds: int) -> dict[str, float]:
    """anomalib's figures, from its interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "maps.npz"
        np.savez(file, **scored._asdict())
        script = Path(__file__).with_name("metrics_by_anomalib.py")
        answer = subprocess.run([python, script, file, str(thresholds)], check=True, stdout=subprocess.PIPE)
    found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    sys.exit(main())
