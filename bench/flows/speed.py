"""Training steps of a Glow, beside normflows and FrEIA.

A training step is a forward and a backward pass of one scale of Glow (K steps of activation normalisation,
invertible 1x1 convolution and affine coupling) on random images. All networks are conv 3x3, 1x1, 3x3. FrEIA
uses its AllInOneBlock with as many learned Householder reflections as channels, its only learned mixing of
channels for images.
"""

import statistics
import time
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bench.interleaving import interleave
from bench.report import Report, ratio
from flows import ActNorm, Compose, standard_normal_log_prob
from flows.recipes import glow

CHANNELS, SIZE = 12, 16  # 3 x 32 x 32 after one squeeze


def our_glow(steps: int, hidden: int) -> nn.Module:
    """Build the steps of one of our scales, without its squeeze."""
    flow = glow((CHANNELS // 4, 2 * SIZE, 2 * SIZE), scales=1, steps=steps, hidden=hidden)
    parts = [module for module in flow.transform.modules() if isinstance(module, Compose)]
    return next(part for part in parts if isinstance(part.transforms[0], ActNorm))


def normflows_glow(steps: int, hidden: int) -> nn.Module:
    """Build the same steps with normflows, towards the latents."""
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


def freia_glow(steps: int, hidden: int) -> Any:
    """Build the same steps with FrEIA, which mixes channels with learned reflections."""
    import FrEIA.framework as ff
    import FrEIA.modules as fm

    def subnet(in_: int, out: int) -> nn.Module:
        last = nn.Conv2d(hidden, out, 3, padding=1)
        nn.init.zeros_(last.weight)
        if last.bias is not None:
            nn.init.zeros_(last.bias)
        first, middle = nn.Conv2d(in_, hidden, 3, padding=1), nn.Conv2d(hidden, hidden, 1)
        return nn.Sequential(first, nn.ReLU(), middle, nn.ReLU(), last)

    chain = ff.SequenceINN(CHANNELS, SIZE, SIZE)
    for _ in range(steps):
        chain.append(fm.AllInOneBlock, subnet_constructor=subnet, learned_householder_permutation=CHANNELS)
    return chain


GLOWS = {"FlowGauge": our_glow, "normflows": normflows_glow, "FrEIA": freia_glow}


def training_step(model: nn.Module, x: Tensor) -> float:
    """Time a forward and a backward pass of the negative log-likelihood, in seconds."""
    start = time.perf_counter()
    z, log_det = model(x)
    loss = -(standard_normal_log_prob(z) + log_det).mean()
    model.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    return time.perf_counter() - start


def run(*, quick: bool) -> Report:
    """Time training steps of all libraries in turns, and report the ratios."""
    report = Report("speed", {"rounds": 2 if quick else 15, "threads": torch.get_num_threads()})
    for steps, hidden, batch in [(2, 16, 4)] if quick else [(16, 64, 16), (8, 256, 16)]:
        torch.manual_seed(0)
        x = torch.randn(batch, CHANNELS, SIZE, SIZE)
        models = {name: make(steps, hidden).train() for name, make in GLOWS.items()}
        training_steps = {name: partial(training_step, model, x) for name, model in models.items()}
        interleave(training_steps, 2)  # warms up and sets the activation norms
        seconds = interleave(training_steps, report.settings["rounds"])
        size = f"{steps} steps of {hidden} channels, batches of {batch}"
        report.ratios += [
            ratio(f"{size}: {name} over FlowGauge", seconds[name], seconds["FlowGauge"])
            for name in GLOWS
            if name != "FlowGauge"
        ]
        report.notes.append(f"{size}: FlowGauge {1000 * statistics.median(seconds['FlowGauge']):.0f} ms")
        report.figures[size] = {
            "seconds": seconds,
            "parameters": {
                name: sum(p.numel() for p in model.parameters()) for name, model in models.items()
            },
        }
    return report
