"""Training steps of a Glow, side by side with normflows and FrEIA, and what recomputing saves.

    python -m bench.flows.speed [--rounds 15] [--quick]

Time: forward and backward pass of one scale of Glow (K steps of activation normalisation, invertible 1x1
convolution and affine coupling) on random images, the same networks (conv 3x3, 1x1, 3x3) in all. They
take turns within each round, and the figure is the median over rounds of the ratio of times in the same
round. FrEIA's step is its AllInOneBlock with as many learned Householder reflections as channels, the one
learned mixing of channels that it has for images, with about as many parameters; its steps with a fixed
mixing, which compute less, stand beside it.

Memory: how far the resident memory of a fresh process rises, at its peak, above where it stood before the
step, for 32 steps with `recompute` and without.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.memory import status_bytes
from flows import ActNorm, Compose, standard_normal_log_prob
from flows.recipes import glow

RESULTS = Path("bench-results/flows")
CHANNELS, SIZE = 12, 16  # what 3 x 32 x 32 becomes by one squeeze


def ours(steps: int, hidden: int, *, recompute: bool = False) -> nn.Module:
    """The steps of one of our scales, without its squeeze."""
    event = (CHANNELS // 4, 2 * SIZE, 2 * SIZE)
    flow = glow(event, scales=1, steps=steps, hidden=hidden, recompute=recompute)
    parts = [module for module in flow.transform.modules() if isinstance(module, Compose)]
    return next(part for part in parts if isinstance(part.transforms[0], ActNorm))


def normflows_glow(steps: int, hidden: int) -> nn.Module:
    """The same steps of normflows, towards the latents."""
    import normflows as nf

    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks: list[Any] = [
                nf.flows.GlowBlock(CHANNELS, hidden, split_mode="channel", scale=True, init_zeros=True)
                for _ in range(steps)
            ]
            self.held = nn.ModuleList(self.blocks)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            total = x.new_zeros(len(x))
            for block in self.blocks:
                x, log_det = block.inverse(x)
                total = total + log_det
            return x, total

    return Chain()


def freia_glow(steps: int, hidden: int, *, learned: bool = True) -> Any:
    """The same steps of FrEIA, whose mixing of the channels is learned reflections, or fixed."""
    import FrEIA.framework as ff
    import FrEIA.modules as fm

    def subnet(in_: int, out: int) -> nn.Module:
        last = nn.Conv2d(hidden, out, 3, padding=1)
        nn.init.zeros_(last.weight)
        if last.bias is not None:
            nn.init.zeros_(last.bias)
        return nn.Sequential(
            nn.Conv2d(in_, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 1),
            nn.ReLU(),
            last,
        )

    chain = ff.SequenceINN(CHANNELS, SIZE, SIZE)
    for _ in range(steps):
        if learned:
            chain.append(
                fm.AllInOneBlock, subnet_constructor=subnet, learned_householder_permutation=CHANNELS
            )
            continue
        rotation, _r = torch.linalg.qr(torch.randn(CHANNELS, CHANNELS))
        chain.append(fm.ActNorm)
        chain.append(fm.Fixed1x1Conv, M=rotation)
        chain.append(fm.AffineCouplingOneSided, subnet_constructor=subnet)
    return chain


def step(model: nn.Module, x: Tensor) -> None:
    """One forward and backward pass of the negative log-likelihood."""
    z, log_det = model(x)
    loss = -(standard_normal_log_prob(z) + log_det).mean()
    model.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)


def seconds(run: Callable[[], None]) -> float:
    """Of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@dataclass(frozen=True)
class Comparison:
    """Of one size: medians over the rounds, and medians of the ratios within a round."""

    steps: int
    hidden: int
    batch: int
    threads: int
    parameters: dict[str, int]
    milliseconds: dict[str, float]
    ratio: dict[str, float]


def compare(steps: int, hidden: int, batch: int, rounds: int) -> Comparison:
    """Times of all in turns."""
    torch.manual_seed(0)
    x = torch.randn(batch, CHANNELS, SIZE, SIZE)
    models = {
        "FlowGauge": ours(steps, hidden),
        "normflows": normflows_glow(steps, hidden),
        "FrEIA": freia_glow(steps, hidden),
        "FrEIA, fixed mixing": freia_glow(steps, hidden, learned=False),
    }
    times: dict[str, list[float]] = {name: [] for name in models}
    for model in models.values():
        model.train()
        for _ in range(2):
            step(model, x)
    names = list(models)
    for turn in range(rounds):
        # Each is first as often as the others: what runs after whom does not decide.
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            times[name].append(seconds(lambda name=name: step(models[name], x)))  # type: ignore[misc]
    mine = times["FlowGauge"]
    return Comparison(
        steps,
        hidden,
        batch,
        torch.get_num_threads(),
        {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()},
        {name: 1000 * statistics.median(t) for name, t in times.items()},
        {
            name: statistics.median(b / a for a, b in zip(mine, times[name], strict=True))
            for name in names[1:]
        },
    )


def memory_of_this_process(recompute: bool, steps: int, hidden: int, batch: int) -> int:
    """Bytes by which one step raises the resident memory of this process at its peak."""
    model = ours(steps, hidden, recompute=recompute).train()
    x = torch.randn(batch, CHANNELS, SIZE, SIZE)
    with torch.no_grad():
        model(x[:2])  # sets the activation norms
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts here (proc(5))
    before = status_bytes(os.getpid(), "VmRSS")
    z, log_det = model(x)
    torch.autograd.backward(-(standard_normal_log_prob(z) + log_det).mean())
    return status_bytes(os.getpid(), "VmHWM") - before


def memory(steps: int, hidden: int, batch: int) -> dict[str, float]:
    """Megabytes with and without recomputing, each in a process of its own."""
    found = {}
    for recompute in (False, True):
        code = (
            "from bench.flows.speed import memory_of_this_process as m;"
            f"print(m({recompute}, {steps}, {hidden}, {batch}))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        found["recomputed" if recompute else "kept"] = int(done.stdout) / 1e6
    return found


def main() -> None:
    """Run both, print them, and write them down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="a smoke run, whose figures mean nothing")
    arguments = parser.parse_args()
    rounds = 2 if arguments.quick else arguments.rounds
    sizes = [(2, 16, 4)] if arguments.quick else [(16, 64, 16), (8, 256, 16)]
    results = [compare(*size, rounds) for size in sizes]
    others = list(results[0].ratio)
    print(f"| steps | hidden | batch | FlowGauge | {' | '.join(f'{name} / ours' for name in others)} |")
    print("|---" * (4 + len(others)) + "|")
    for r in results:
        ratios = " | ".join(f"{r.milliseconds[name]:.0f} ms, {r.ratio[name]:.2f}" for name in others)
        print(f"| {r.steps} | {r.hidden} | {r.batch} | {r.milliseconds['FlowGauge']:.0f} ms | {ratios} |")
    for r in results:
        print(f"parameters at {r.steps} x {r.hidden}: {r.parameters}, threads: {r.threads}")
    peak = memory(4, 16, 8) if arguments.quick else memory(32, 64, 64)
    share = peak["recomputed"] / peak["kept"] if peak["kept"] else math.nan
    print(f"peak of a step: {peak['kept']:.0f} MB kept, {peak['recomputed']:.0f} MB recomputed ({share:.2f})")
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "speed.json").write_text(
        json.dumps({"time": [asdict(r) for r in results], "memory_mb": peak}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
