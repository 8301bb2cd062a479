"""What does the way to the input size cost? One category trained and measured in several geometries.

    python -m bench.geometry --data DIR --category magnetic_tile \\
        --geometry '{fit: stretch}' '{fit: pad}' '{fit: tile}' --seeds 0 1 --threads 1

Maps of all geometries are compared at one size, that of each picture with its longer side at 256 pixels. The
border is the sixteenth of each side along the edges of the good test pictures: the table says how much
brighter maps are there than inside, and how often the brightest pixel lies there beside the share of pixels
that do.
Stopped and started again it continues.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from rich.console import Console

from flows.fastflow.detector import Detector
from flows.fastflow.images import read
from flows.fastflow.resizing import resize
from training.config import RunConfig
from training.datasets.layout import test_samples
from training.datasets.sample import Sample
from training.measurement import Measurement
from training.progress import ConsoleProgress
from training.run import train

_SIDE = 256
_BAND = 16  # a border is so much of a side


@dataclass(frozen=True)
class Figures:
    """What was measured of one model; border figures on the good test pictures.

    AUROCs are None where `training.measurement.Figures` has none.
    """

    image_auroc: float | None
    pixel_auroc: float | None
    border_over_interior: float
    peaks_in_border: float
    border_share: float
    milliseconds: float


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--category", required=True)
    parser.add_argument("--geometry", nargs="+", default=["{fit: stretch}", "{fit: pad}", "{fit: tile}"])
    parser.add_argument("--input-size", type=int, default=256)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--tiles", type=int)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("bench-results/geometry"))
    options = parser.parse_args()
    samples = test_samples(options.data, options.category)
    print(
        "| geometry | seed | image AUROC | pixel AUROC | border / interior | peaks in border (pixels) | ms |"
    )
    print("|---" * 7 + "|", flush=True)
    for text in options.geometry:
        for seed in options.seeds:
            fit = {"threads": options.threads, "epochs": options.epochs, "tiles": options.tiles}
            config = RunConfig.model_validate(
                {
                    "seed": seed,
                    "input_size": [options.input_size] * 2,
                    "geometry": yaml.safe_load(text),
                    "fit": {name: value for name, value in fit.items() if value is not None},
                }
            )
            outcome = train(
                config,
                options.data,
                options.category,
                models=options.out / "models",
                runs=options.out / "runs",
                resume=True,
                progress=ConsoleProgress(Console(stderr=True)),
            )
            found = measure(Detector.load(outcome.bundle), samples)
            aurocs = ["" if x is None else f"{x:.4f}" for x in (found.image_auroc, found.pixel_auroc)]
            print(
                f"| `{text}` | {seed} | {' | '.join(aurocs)} "
                f"| {found.border_over_interior:.3f} "
                f"| {found.peaks_in_border:.0%} ({found.border_share:.0%}) "
                f"| {found.milliseconds:.0f} |",
                flush=True,
            )


def measure(detector: Detector, samples: list[Sample]) -> Figures:
    """Measure a model on test pictures."""
    good = []
    seconds = 0.0
    with Measurement() as measured:
        for sample in samples:
            image = read(sample.path, sample_bits=detector.manifest.sample_bits)
            height, width = image.shape[:2]
            begun = time.monotonic()
            [prediction] = detector.predict([image])
            seconds += time.monotonic() - begun
            scale = _SIDE / max(height, width)
            size = max(1, round(scale * height)), max(1, round(scale * width))
            score_map = resize(prediction.score_map, size)
            measured.add(sample, (height, width), prediction.score, score_map)
            if sample.defect is None:
                good.append(score_map)
        found = measured.figures()
    borders = [border(m.shape) for m in good]
    outside = [float(m[b].mean()) for m, b in zip(good, borders, strict=True)]
    inside = [float(m[~b].mean()) for m, b in zip(good, borders, strict=True)]
    return Figures(
        image_auroc=found.image_auroc,
        pixel_auroc=None if found.pixels is None else found.pixels.auroc,
        border_over_interior=float(np.mean(outside) / np.mean(inside)),
        peaks_in_border=float(np.mean([b.flat[m.argmax()] for m, b in zip(good, borders, strict=True)])),
        border_share=float(np.mean([b.mean() for b in borders])),
        milliseconds=1000 * seconds / len(samples),
    )


def border(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which pixels of a map (h, w) lie along its edges."""
    high, wide = (max(1, side // _BAND) for side in shape)
    result = np.ones(shape, np.bool_)
    result[high:-high, wide:-wide] = False
    return result


if __name__ == "__main__":
    main()
