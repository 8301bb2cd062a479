"""Memory and time of all pixel metrics of many large maps.

python -m bench.metrics_memory            # 1,000 maps of 512 px: 1 GiB of scores
"""

import argparse
import os
import sys
import time

import cv2
import numpy as np

from bench.memory import peak_bytes
from training.metrics import PixelMetrics


def main(arguments: list[str] | None = None) -> int:
    """Print the peak of the process's memory before, while maps come, and after the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--maps", type=int, default=1000)
    parser.add_argument("--size", type=int, default=512)
    options = parser.parse_args(arguments)
    size = options.size
    rng = np.random.default_rng(0)
    before = _peak()
    taken = 0.0
    with PixelMetrics() as metrics:
        for i in range(options.maps):
            mask = np.zeros((size, size), dtype=np.uint8)
            if i % 2:
                x, y = (int(v) for v in rng.integers(0, size, 2))
                cv2.ellipse(mask, (x, y), (size // 6, size // 10), float(rng.uniform(0, 180)), 0, 360, 1, -1)
            scores = rng.standard_normal((size, size), dtype=np.float32) + np.float32(1.5) * mask.astype(
                np.float32
            )
            start = time.perf_counter()
            metrics.update(scores, mask > 0)
            taken += time.perf_counter() - start
        filled = _peak()
        start = time.perf_counter()
        figures = metrics.compute()
        computed = time.perf_counter() - start
    gibibytes = options.maps * size * size * 4 / 2**30
    print(f"{options.maps} maps of {size} px, {gibibytes:.2f} GiB of scores")
    print(f"peak memory: {before:.0f} MiB before, {filled:.0f} after the last map, {_peak():.0f} in the end")
    print(f"time: {taken:.1f} s to take the maps, {computed:.1f} s to measure")
    print(
        f"AUROC {figures.auroc:.6f}, AP {figures.average_precision:.6f}, F1-max {figures.f1_max.value:.6f}, "
        + ", ".join(f"AUPRO {limit:g} {value:.6f}" for limit, value in figures.aupro.items())
        + (f", AUPIMO {figures.aupimo:.6f}" if figures.aupimo is not None else "")
    )
    return 0


def _peak() -> float:
    """The largest resident size of this process so far, in MiB."""
    return peak_bytes(os.getpid()) / 2**20


if __name__ == "__main__":
    sys.exit(main())
