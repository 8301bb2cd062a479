"""What each preset costs: parameters, multiply-adds, size of a bundle's flows, milliseconds a picture.

    python -m bench.presets [--only NAME ...] [--rounds 10] [--batch 1 8] [--threads 2] [--cpu]

Weights are made by chance, which costs as much to compute as trained ones. The backbone's time is that of
its forward pass over uint8 pictures of the preset's input size, the head's that of the normalisation, the
flows, the map and the score. Each is the median over rounds after one to warm up, divided by the batch.
--cpu takes the time of the processor in place of the clock's, which on a busy machine says more; with
--threads 1, or waiting counts. Backbones of more than 100 million parameters are timed at batch 1 alone.
Prints a Markdown table, and writes bench-results/presets.json.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from bench.chance import weights_of_chance
from flowgauge import keep_freed_memory, spin_briefly
from flows.fastflow.cost import Cost, cost
from flows.fastflow.features import FeatureExtractor
from flows.fastflow.head import Head
from flows.fastflow.presets import PAPER, PRESETS, Preset
from flows.fastflow.scorer import Scorer
from flows.fastflow.weights import Weights
from training.config import RunConfig

RESULTS = Path("bench-results/presets.json")
LARGE = 100_000_000


@dataclass(frozen=True)
class Timing:
    """Milliseconds a picture, at a batch size."""

    batch: int
    backbone_ms: float
    head_ms: float


@dataclass(frozen=True)
class Stopwatch:
    """Takes the median time of a call, after one that is not counted."""

    rounds: int
    clock: Callable[[], float]

    def milliseconds(self, work: Callable[[], object]) -> float:
        """Of one call."""
        work()
        times = []
        for _ in range(self.rounds):
            start = self.clock()
            work()
            times.append(1000 * (self.clock() - start))
        return statistics.median(times)


def timings(preset: Preset, config: RunConfig, batches: list[int], watch: Stopwatch) -> list[Timing]:
    """Time a preset with weights of chance."""
    torch.manual_seed(0)
    weights = Weights(preset.backbone, "chance", "0" * 64, weights_of_chance(preset.backbone))
    extractor = FeatureExtractor(weights, preset.out_indices, preset.input_size)
    del weights
    black = torch.zeros(1, *preset.input_size, 3, dtype=torch.uint8)
    sizes = config.gaussian.sizes([x.numpy() for x in extractor(black)])
    head = Head(extractor.channels, config.normalisation, config.flow, sizes)
    rule = config.score.rule(head, config.geometry)
    scorer = Scorer(extractor, head, config.input_size, rule, config.geometry)
    found = []
    for batch in batches:
        images = torch.randint(0, 256, (batch, *preset.input_size, 3), dtype=torch.uint8)
        maps = list(extractor(images))
        backbone_ms = watch.milliseconds(partial(extractor, images)) / batch
        head_ms = watch.milliseconds(partial(scorer.score_features, maps)) / batch
        found.append(Timing(batch, backbone_ms, head_ms))
    return found


def row(preset: Preset, counted: Cost, timed: list[Timing]) -> str:
    """A line of the table."""
    times = " | ".join(f"{t.backbone_ms:.0f} + {t.head_ms:.0f}" for t in timed)
    return (
        f"| {preset.name} | {preset.input_size[0]} | {', '.join(map(str, counted.channels))} | "
        f"{', '.join(map(str, counted.strides))} | {counted.backbone_parameters / 1e6:.1f} | "
        f"{counted.backbone_macs / 1e9:.2f} | {counted.flow_macs / 1e9:.2f} | "
        f"{counted.flow_bytes / 1e6:.1f} | {times} |"
    )


def main() -> None:
    """Measure and print, a preset at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PRESETS))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    names = options.only or [name for name in PRESETS if not name.startswith(PAPER)]
    watch = Stopwatch(options.rounds, time.process_time if options.cpu else time.perf_counter)
    heads = " | ".join(f"ms at {batch}" for batch in options.batch)
    print(f"| preset | px | channels | strides | backbone M | its G | flows G | flows MB | {heads} |")
    print("|" + "---|" * (8 + len(options.batch)))
    results = {}
    for name in names:
        preset = PRESETS[name]
        config = RunConfig.model_validate(preset.settings())
        counted = cost(preset.backbone, preset.out_indices, preset.input_size, config.flow)
        batches = options.batch[:1] if counted.backbone_parameters > LARGE else options.batch
        timed = timings(preset, config, batches, watch)
        print(row(preset, counted, timed), flush=True)
        results[name] = {**asdict(counted), "timings": [asdict(t) for t in timed]}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(
        json.dumps({"threads": options.threads, "cpu": options.cpu, "presets": results}, indent=1)
    )


if __name__ == "__main__":
    keep_freed_memory()
    spin_briefly()
    main()
