"""Does a conditional flow learn a camera's noise from repeated shots of real photographs?

    python -m bench.flows.noise             a minute or two; --quick for a look at whether it runs

A Poisson-Gaussian camera of known gain and read-out noise shoots patches of a photograph several times. The
flow sees the shots alone. On another photograph its noise is compared with the camera's, brightness by
brightness, and its likelihood with that of one normal distribution (too simple), of a normal whose variance
is the camera's, and of the camera's exact law (nothing can be better in the mean).
"""

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.service.figures import Figures, report
from training.density.fit import FitSettings
from training.density.noise import Camera, fit_noise, noise_levels, noise_of_repeats, photograph_patches

_SHOTS = 16
_MOST_OFF = 0.2  # of a variance, relative
_MOST_NATS = 0.05  # per pixel, below the exact law


def measure(
    camera: Camera, settings: FitSettings, *, scenes: int, test_scenes: int
) -> tuple[Figures, list[str]]:
    """Fit on one photograph and compare on another.

    Returns:
        The figures, and the lines of the Markdown tables.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    china, flower = _some(photograph_patches("china.jpg"), scenes), photograph_patches("flower.jpg")
    shots = torch.stack([camera.shoot(china, generator) for _ in range(_SHOTS)])
    clean, noise = noise_of_repeats(shots)
    begun = time.monotonic()
    flow, points = fit_noise(clean, noise, settings)
    seconds = time.monotonic() - begun

    test = _some(flower, test_scenes)
    truth = camera.shoot(test, generator) - test
    torch.manual_seed(settings.seed)
    with torch.no_grad():
        drawn = torch.cat([flow.sample(len(part), context=part) for part in torch.split(test, 500)])
        learned = torch.cat([flow.log_prob(*pair) for pair in _pairs(truth, test)])
    pixels = test[0].numel()

    def normal(variance: Tensor) -> Tensor:
        log_prob = -0.5 * (truth.square() / variance + variance.log() + math.log(2 * math.pi))
        return log_prob.flatten(1).sum(1)

    one_variance = normal(noise.square().mean().expand_as(truth))
    exact = torch.cat([camera.log_prob(*pair) for pair in _pairs(truth, test)])
    per_pixel = {
        "one normal": one_variance.mean().item() / pixels,
        "normal of the camera's variance": normal(camera.variance(test)).mean().item() / pixels,
        "flow": learned.mean().item() / pixels,
        "exact": exact.mean().item() / pixels,
    }
    lines = [
        "| brightness | pixels | camera's variance | flow's | ratio |",
        "|---:|---:|---:|---:|---:|",
    ]
    rows = []
    for level in noise_levels(drawn, test):
        expected = camera.variance(torch.tensor(level.brightness)).item()
        rows.append(
            {
                "brightness": round(level.brightness, 4),
                "pixels": level.pixels,
                "camera": expected,
                "flow": level.variance,
                "ratio": round(level.variance / expected, 3),
            }
        )
        lines.append(
            f"| {level.brightness:.2f} | {level.pixels:,} | {expected:.5f} | {level.variance:.5f} | "
            f"{level.variance / expected:.2f} |"
        )
    gain, read = np.polyfit(
        [row["brightness"] for row in rows],
        [row["flow"] for row in rows],
        1,
        w=[math.sqrt(row["pixels"]) / row["camera"] for row in rows],
    )
    lines += ["", "| density of the noise | nats per pixel |", "|---|---:|"]
    lines += [f"| {name} | {value:.4f} |" for name, value in per_pixel.items()]
    lines += [
        "",
        f"Variance by the flow: {gain:.5f} x + {read:.6f}; the camera's: {camera.gain} x + "
        f"{camera.read_variance}",
    ]
    figures: Figures = {
        "levels": rows,
        "line": {"gain": round(float(gain), 6), "read_variance": round(float(read), 7)},
        "camera": {"gain": camera.gain, "read_variance": camera.read_variance},
        "nats_per_pixel": {name: round(value, 5) for name, value in per_pixel.items()},
        "shots": _SHOTS,
        "pairs": len(clean),
        "best_step": min(points, key=lambda point: point.validation).step,
        "fit_seconds": round(seconds, 1),
    }
    return figures, lines


def faults(figures: Figures) -> list[str]:
    """What a flow that has learned the camera would not show."""
    found = [
        f"at brightness {row['brightness']} the flow's variance is {row['ratio']} of the camera's"
        for row in figures["levels"]
        if not abs(row["ratio"] - 1) <= _MOST_OFF
    ]
    nats = figures["nats_per_pixel"]
    if not nats["flow"] > nats["one normal"]:
        found.append("the flow is no better than a normal distribution of one variance")
    if not nats["exact"] - nats["flow"] <= _MOST_NATS:
        found.append(f"the flow is {nats['exact'] - nats['flow']:.3f} nats per pixel below the exact law")
    return found


def _some(patches: Tensor, count: int) -> Tensor:
    """Patches of all over the photograph, always the same."""
    return patches[torch.linspace(0, len(patches) - 1, min(count, len(patches))).long()]


def _pairs(noise: Tensor, clean: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(torch.split(noise, 250), torch.split(clean, 250), strict=True))


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it runs")
    parser.add_argument("--out", type=Path, default=Path("bench-results/flows"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps = 20 if options.quick else options.steps
    settings = FitSettings(
        steps=steps, batch_size=128, learning_rate=5e-3, every=max(1, min(100, steps // 4))
    )
    sizes = (100, 100) if options.quick else (1500, 1500)
    figures, lines = measure(Camera(), settings, scenes=sizes[0], test_scenes=sizes[1])
    print("\n".join(lines), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "noise.md").write_text("\n".join(lines) + "\n")
    return report("noise", figures, [] if options.quick else faults(figures), options.out)


if __name__ == "__main__":
    sys.exit(main())
