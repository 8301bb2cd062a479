"""Inference form of a head: the same energies from fewer operations.

It drops the log-determinants, and folds the affine after each coupling into the coupling's last convolution
or into the next step. The rest are plain tensor operations, which engines compute directly or convert to a
graph.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flows import ChannelAffine, Compose, Coupling, Halves, Permutation
from flows.fastflow.model import alternating, convolution, folding
from flows.fastflow.model.gaussian import position_energy
from flows.fastflow.model.head import Head
from flows.fastflow.model.learned import describe


class Energies(NamedTuple):
    """Energies of N inputs, and the moments of their features.

    Attributes:
        flow: per scale (N, H_i, W_i), energies of the latents; of the features, if there are no flows.
        gaussian: per scale (N, H_i, W_i), energies of the features at each position.
        image: (N, S'), energies of each whole input, see `ImageGaussian`; the last column is that of
            `CellGaussian`, if the head has one.
        mean: (N, S), mean of the features at each scale: normalised ones, or the backbone's if layer norm
            would make all inputs equal.
        square: (N, S), mean of their squares.
        description: see `learned.describe`; None unless the head describes.
    """

    flow: list[Tensor]
    gaussian: list[Tensor]
    image: Tensor
    mean: Tensor
    square: Tensor
    description: Tensor | None = None


class FusedHead(nn.Module):
    """Fixed head in its inference form, from feature maps to energies.

    Args:
        head: the head; unchanged modules are shared with it.
        describes: also compute descriptions; a head with a learned part always does.

    Attributes:
        channels: channels of each scale, finest first.
        bound: bound c of the log-scales.
        scales: the flows.
    """

    def __init__(self, head: Head, *, describes: bool = False) -> None:
        super().__init__()
        self.channels = head.flow.channels
        self.describes = describes or head.learned is not None
        self.bound = head.flow.config.clamp
        self.normaliser, self.image, self.cells = head.normaliser, head.picture, head.cells
        for i in range(len(self.channels)):
            kernel, offset = head.gaussian.folded(i)
            self.register_buffer(f"kernel_{i}", kernel, persistent=False)
            self.register_buffer(f"offset_{i}", offset, persistent=False)
        scales = [cast(Compose, scale) for scale in head.flow.scales]
        self.scales = nn.ModuleList(
            (AlternatingFlow if alternating.is_alternating(scale) else ShuffledFlow)(scale)
            for scale in scales
        )
        self.requires_grad_(False)
        self.eval()

    def forward(self, maps: Sequence[Tensor]) -> Energies:
        """Compute the energies of raw feature maps, per scale (N, C_i, H_i, W_i), finest first."""
        features = self.normaliser(maps)
        return self.complete(maps, features, self.flow_energies(features))

    def flow_energies(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Compute the flows' energies from normalised features; this part may use a reduced precision.

        Without flows there are none.
        """
        return [scale(x) for scale, x in zip(self.scales, features[: len(self.scales)], strict=True)]

    def complete(self, maps: Sequence[Tensor], features: Sequence[Tensor], flow: list[Tensor]) -> Energies:
        """Add the other energies and the moments, from raw and normalised features."""
        seen = maps if self.normaliser.mode == "layer" else features
        # Several times faster than torch.std_mean on channels-last maps.
        mean = torch.stack([x.mean((1, 2, 3)) for x in seen], 1)
        square = torch.stack([x.square().mean((1, 2, 3)) for x in seen], 1)
        gaussian = [
            position_energy(x, self.get_buffer(f"kernel_{i}"), self.get_buffer(f"offset_{i}"))
            for i, x in enumerate(features)
        ]
        flow = flow or gaussian
        image = self.image(features)
        if self.cells is not None:
            image = torch.cat([image, self.cells(features[self.image.first])[:, None]], 1)
        description = describe(features, flow, gaussian) if self.describes else None
        return Energies(flow, gaussian, image, mean, square, description)


class AlternatingFlow(nn.Module):
    """Flow with alternating halves, to energies; halves stay separate until the end."""

    def __init__(self, flow: Compose) -> None:
        super().__init__()
        first, *rest = flow.transforms
        index = cast(Permutation, first).index
        self.channels = len(index)
        split = (self.channels + 1) // 2
        self.register_buffer("first", index[:split].clone(), persistent=False)
        self.register_buffer("second", index[split:].clone(), persistent=False)
        self.first: Tensor
        self.second: Tensor
        steps: list[CouplingStep] = []
        for i, (coupling, affine) in enumerate(zip(rest[::2], rest[1::2], strict=True)):
            own = slice(split, None) if i % 2 == 0 else slice(0, split)
            other = slice(0, split) if i % 2 == 0 else slice(split, None)
            # A half that passes unchanged is transformed in the next step, which includes its affine.
            before = steps[-1] if steps else None
            parts = cast(Coupling, coupling), cast(ChannelAffine, affine)
            steps.append(CouplingStep(*parts, own, other, before))
        for step in steps[:-1]:
            del step.passed_gain, step.passed_shift
        self.steps = nn.ModuleList(steps)

    def forward(self, x: Tensor) -> Tensor:
        halves = [x.index_select(1, self.first), x.index_select(1, self.second)]
        for i, module in enumerate(self.steps):
            seen, changed = i % 2, 1 - i % 2
            halves[changed] = cast(CouplingStep, module)(halves[seen], halves[changed])
        halves[seen] = cast(CouplingStep, module).pass_by(halves[seen])
        return _energy(halves)


class ShuffledFlow(nn.Module):
    """Flow that permutes channels after every step, to energies."""

    def __init__(self, flow: Compose) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        orders: list[Tensor] = []
        couplings, affines, permutations = (flow.transforms[i::3] for i in range(3))
        for coupling, affine, permutation in zip(couplings, affines, permutations, strict=True):
            split = cast(Halves, cast(Coupling, coupling).partition).conditioning
            steps.append(
                CouplingStep(
                    cast(Coupling, coupling),
                    cast(ChannelAffine, affine),
                    slice(split, None),
                    slice(0, split),
                )
            )
            orders.append(cast(Permutation, permutation).index)
        self.steps = nn.ModuleList(steps)
        self.register_buffer("orders", torch.stack(orders), persistent=False)
        self.orders: Tensor
        self.split = split
        self.channels = self.orders.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        for i, module in enumerate(self.steps):
            step = cast(CouplingStep, module)
            seen, changed = x[:, : self.split], x[:, self.split :]
            y = torch.cat([step.pass_by(seen), step(seen, changed)], 1)
            x = y.index_select(1, self.orders[i])
        return _energy([x])


class CouplingStep(nn.Module):
    """Coupling with its channel affines: y = (x + b) exp(d sigmoid(a) + s) + t.

    See `folding.fold_coupling`.

    Args:
        coupling: affine coupling of channel halves.
        affine: the affine after it.
        changed: the affine's channels that the coupling transforms.
        passed: its other channels.
        before: the step in which x passed unchanged and whose affine this step applies.

    Attributes:
        slope: d.
        changed: number of transformed channels.
        has_before: true if there is a step before.
        has_middle: true if the conditioner has a depthwise convolution in the middle.
    """

    def __init__(
        self,
        coupling: Coupling,
        affine: ChannelAffine,
        changed: slice,
        passed: slice,
        before: "CouplingStep | None" = None,
    ) -> None:
        super().__init__()
        self.has_before = before is not None
        self.passed = affine.log_scale[passed].detach(), affine.shift[passed].detach()
        after = affine.log_scale[changed], affine.shift[changed]
        left = None if before is None else before.passed
        folded = folding.fold_coupling(coupling, after, left, affine.shift.dtype)
        self.has_middle = folded.middle_weight is not None
        self.slope = 2 * folded.bound
        self.changed = len(folded.level)
        # Torch uses the lowest log-scale; graphs use exp of the middle of its range.
        buffers = {
            "hidden_weight": folded.first_weight,
            "hidden_bias": folded.first_bias,
            "weight": folded.last_weight,
            "bias": folded.last_bias,
            "lowest": folded.level.view(1, -1, 1, 1),
            "gain": (folded.level + folded.bound).exp().view(1, -1, 1, 1),
            "before": folded.before.view(1, -1, 1, 1) if self.has_before else None,
            "middle_weight": folded.middle_weight,
            "middle_bias": folded.middle_bias,
            "passed_gain": self.passed[0].exp().view(1, -1, 1, 1),
            "passed_shift": self.passed[1].view(1, -1, 1, 1),
        }
        for name, value in buffers.items():
            if value is not None:
                self.register_buffer(name, value.detach(), persistent=False)

    def forward(self, seen: Tensor, x: Tensor) -> Tensor:
        """Transform x, (N, C', H, W), conditioned on (N, C'', H, W)."""
        get = self.get_buffer
        hidden = F.relu(convolution.convolve(seen, get("hidden_weight"), get("hidden_bias")))
        if self.has_middle:
            hidden = F.relu(convolution.convolve(hidden, get("middle_weight"), get("middle_bias")))
        parameters = convolution.convolve(hidden, get("weight"), get("bias"))
        a, shift = parameters.to(x.dtype).chunk(2, 1)
        if self.has_before:
            x = x + get("before")
        # Copied first: the function is slow on strided rows.
        gate = torch.sigmoid(a.contiguous(memory_format=torch.channels_last))
        return torch.addcmul(shift, x, torch.add(get("lowest"), gate, alpha=self.slope).exp())

    def pass_by(self, seen: Tensor) -> Tensor:
        """Apply the affine to the half that the coupling does not transform."""
        return seen * self.get_buffer("passed_gain") + self.get_buffer("passed_shift")


def _energy(parts: Sequence[Tensor]) -> Tensor:
    """Compute q = 1/2 mean_C z^2, (N, H, W), of latents whose channels lie in several tensors."""
    channels = sum(z.shape[1] for z in parts)
    total = sum(z.float().square().sum(1) for z in parts)
    return cast(Tensor, total) * (0.5 / channels)
