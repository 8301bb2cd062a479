"""What a backbone takes whose convolutions are written anew, beside OpenVINO's own.

    python -m bench.convolutions [--only NAME ...] [--size 256] [--rounds 15] [--threads 2]

Backbones with weights of chance, each to its stages of strides 4 to 16: in float32, where 3x3 convolutions go
by tiles, and in bfloat16, where the processor has it, with the one of pixels in bfloat16, too, beside first
layers in float32. Both take turns, and a ratio is that of a round; the median over rounds counts. Prints
Markdown tables, and writes bench-results/convolutions.json.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from openvino import Core

from bench.chance import weights_of_chance
from bench.inference.engines import openvino_precisions
from bench.turns import Times, cells, in_turns
from flows.fastflow.engines.openvino_backbone import convert
from flows.fastflow.engines.openvino_engine import OpenVinoEngine
from flows.fastflow.engines.openvino_stem import stem_in_bfloat16
from flows.fastflow.engines.openvino_winograd import rewrite
from flows.fastflow.features import FeatureExtractor
from flows.fastflow.manifest import Precision
from flows.fastflow.weights import Weights

RESULTS = Path("bench-results/convolutions.json")
BACKBONES = {
    "resnet18": (1, 2, 3),
    "resnet50": (1, 2, 3),
    "wide_resnet50_2": (1, 2, 3),
    "vgg16_bn": (2, 3, 4),
}
BATCH = 8


@dataclass(frozen=True)
class Found:
    """Of a backbone: how many convolutions are written anew, and what it takes by OpenVINO's own and so.

    Attributes:
        weights: MiB of them, in one layout.
        batch: milliseconds a picture, of each round.
        one: milliseconds of a single picture, of each round.
        difference: the largest of any map, over the map's largest number.
    """

    name: str
    precision: Precision
    anew: int
    weights: tuple[float, float]
    batch: Times
    one: Times
    difference: float

    def row(self) -> str:
        """Of the table."""
        weights = " / ".join(f"{n:.0f}" for n in self.weights)
        times = cells((self.batch, self.one), digits=1)
        return (
            "| " + " | ".join([self.name, str(self.anew), weights, *times, f"{self.difference:.0e}"]) + " |"
        )


def measure(
    name: str, stages: Sequence[int], precision: Precision, side: int, rounds: int, threads: int
) -> Found:
    """Both forms of a backbone, in turns."""
    size = (side, side)
    extractor = FeatureExtractor(Weights(name, "chance", "0" * 64, weights_of_chance(name)), stages, size)
    torch.set_num_threads(threads)
    graph = convert(extractor, size)
    graph.reshape([1, *size, 3])
    if precision == "float32":
        anew = rewrite(graph)
    else:
        anew = int(stem_in_bfloat16(Core(), {"INFERENCE_PRECISION_HINT": "f32"}, graph, size))
    engines = [OpenVinoEngine(precision, rewrites=rewrites) for rewrites in (False, True)]
    running = [engine.backbone(extractor, size) for engine in engines]
    # One layout of the two that a small backbone has.
    weights = [one.nbytes / 2**20 / (1 if one.batches == (1,) else 2) for one in running]
    pictures = torch.randint(0, 256, (BATCH, *size, 3), dtype=torch.uint8)
    expected, found = (backbone(pictures) for backbone in running)
    largest = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True))
    batch, one = (
        in_turns((partial(running[0], pictures[:n]), partial(running[1], pictures[:n])), rounds, n)
        for n in (BATCH, 1)
    )
    return Found(name, precision, anew, (weights[0], weights[1]), batch, one, largest)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=BACKBONES, default=list(BACKBONES))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    found = []
    for precision in openvino_precisions():
        print(f"{precision}:\n")
        print("| backbone | anew | weights, MiB | batch of 8: ms each | ratio | one: ms | ratio | differs |")
        print("|---|---|---|---|---|---|---|---|")
        for name in asked.only:
            stages = BACKBONES[name]
            one = measure(name, stages, precision, asked.size, asked.rounds, asked.threads)
            # Of one that stays as it is nothing can be told but noise.
            if one.anew:
                found.append(one)
                print(one.row(), flush=True)
        print()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([asdict(one) for one in found], indent=1))


if __name__ == "__main__":
    main()
