"""What a head takes by graphs of its own, beside those that it shares with all heads of its shape.

    python -m bench.heads [--only NAME ...] [--rounds 25] [--threads 2]

Heads of the default flow with weights of chance, for the maps that a backbone gives of 256 px, by OpenVINO in
float32 and, where the processor has it, in bfloat16. Both take turns, and a ratio is that of a round; the
median over rounds counts. Prints a Markdown table, and writes bench-results/heads.json.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from bench.inference.engines import openvino_precisions
from bench.turns import Times, cells, in_turns
from flows.fastflow.engines.openvino_engine import OpenVinoEngine
from flows.fastflow.engines.openvino_maps import bits_of, maps_of
from flows.fastflow.head import Head
from flows.fastflow.manifest import Normalisation, Precision
from flows.fastflow.model import FlowConfig

RESULTS = Path("bench-results/heads.json")
# Channels and side of each map.
MAPS = {
    "tf_efficientnet_lite0": ((40, 32), (112, 16), (320, 8)),
    "resnet18": ((64, 64), (128, 32), (256, 16)),
}
BATCHES = (8, 1)


@dataclass(frozen=True)
class Found:
    """What a head takes.

    Attributes:
        times: milliseconds a picture, of each round: by shared graphs and by its own, for each of `BATCHES`.
        difference: the largest of any energy of the flow, over the largest energy of its scale.
    """

    name: str
    precision: Precision
    times: list[Times]
    difference: float

    def row(self) -> str:
        """Of the table."""
        times = cells(self.times, digits=2)
        return "| " + " | ".join([self.name, self.precision, *times, f"{self.difference:.0e}"]) + " |"


def measure(name: str, precision: Precision, rounds: int, threads: int) -> Found:
    """A head that shares its graphs and one that has its own, in turns."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    maps = [torch.randn(max(BATCHES), channels, side, side) for channels, side in MAPS[name]]
    sizes = [tuple(m.shape[1:]) for m in maps]
    engine = OpenVinoEngine(precision)
    head = _of_chance(maps)
    sharing, own = engine.head(head), engine.head(head)
    own.specialise(sizes)
    if precision != "float32":
        maps = [maps_of(bits_of(m)) for m in maps]  # as the engine's backbones hand them over
    if not own.own_bytes:
        raise ValueError(f"no room for graphs of its own for a head on {name}")
    pairs = zip(sharing(maps).flow, own(maps).flow, strict=True)
    difference = max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)
    times = []
    for n in BATCHES:
        batch = [m[:n] for m in maps]
        times.append(in_turns((partial(sharing, batch), partial(own, batch)), rounds, n))
    return Found(name, precision, times, difference)


def _of_chance(maps: Sequence[Tensor]) -> Head:
    channels = [m.shape[1] for m in maps]
    sizes = [(m.shape[2], m.shape[3]) for m in maps]
    head = Head(channels, Normalisation(mode="channel", pooling=3), FlowConfig(), sizes).eval()
    for parameter in head.flow.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    head.fit_statistics(lambda: [maps])
    return head.requires_grad_(False)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=MAPS, default=list(MAPS))
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    print("| head on | | batch of 8: shared / own, ms each | ratio | one: ms | ratio | differs |")
    print("|---|---|---|---|---|---|---|")
    found = []
    for name in asked.only:
        for precision in openvino_precisions():
            found.append(measure(name, precision, asked.rounds, asked.threads))
            print(found[-1].row(), flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([asdict(one) for one in found], indent=1))


if __name__ == "__main__":
    main()
