"""Transforms that are wrong on purpose, and which checks of the contract must see it.

Errors like these have happened to libraries of normalizing flows.
"""

import torch
from torch import Tensor

from flows import AffineCoupling, ChannelAffine, Compose, ConvNet, Halves, Permutation, SoftClamp, Transform
from tests.flows.cases import Make, conditioner, coupling

Pair = tuple[Tensor, Tensor]


class PositionsDropped(ChannelAffine):
    """log det = sum(s) for images too: H W is lost, in both directions alike."""

    def _log_det(self, x: Tensor) -> Tensor:
        return self.log_scale.sum().expand(len(x))


class SignFlipped(ChannelAffine):
    """The log_dets of both directions have the other's sign, and cancel all the same."""

    def _log_det(self, x: Tensor) -> Tensor:
        return -super()._log_det(x)


class ScalarLogDet(ChannelAffine):
    def _log_det(self, x: Tensor) -> Tensor:
        return super()._log_det(x)[:1].sum()


class ZeroLogDet(Permutation):
    """One zero for the whole batch, in torch's default dtype."""

    def forward(self, x: Tensor) -> Pair:
        return super().forward(x)[0], torch.zeros(())


class SinglePrecisionLogDet(ChannelAffine):
    def _log_det(self, x: Tensor) -> Tensor:
        return super()._log_det(x).float()


class DetachedLogDet(ChannelAffine):
    """The values are right, and the loss never learns from them."""

    def _log_det(self, x: Tensor) -> Tensor:
        return super()._log_det(x).detach()


class SummedOverBatch(AffineCoupling):
    def forward(self, x: Tensor) -> Pair:
        z, log_det = super().forward(x)
        return z, log_det.sum().expand(len(x))


class BatchStatistics(ChannelAffine):
    """A row's result depends on who else is in the batch."""

    def forward(self, x: Tensor) -> Pair:
        z, log_det = super().forward(x)
        return z - x.mean(0), log_det


class NotInverted(Permutation):
    def inverse(self, z: Tensor) -> Pair:
        return self.forward(z)


class ShiftFirst(ChannelAffine):
    """Undone in the wrong order: (z / scale) - shift."""

    def inverse(self, z: Tensor) -> Pair:
        scale, shift = (p.view(1, -1, *[1] * (z.ndim - 2)) for p in (self.log_scale.exp(), self.shift))
        return z / scale - shift, super().inverse(z)[1]


class InPlace(ChannelAffine):
    def forward(self, x: Tensor) -> Pair:
        log_det = super().forward(x)[1]
        x.mul_(self._like(x)[0].exp())
        return x.add_(self._like(x)[1]), log_det


class Unchecked(ChannelAffine):
    """No look at the shape: other numbers of channels broadcast, or fail in torch's words."""

    def _like(self, x: Tensor) -> Pair:
        shape = (1, -1) + (1,) * (x.ndim - 2)
        return self.log_scale.view(shape), self.shift.view(shape)


class WrongHalf(AffineCoupling):
    """The conditioner sees the half that is transformed."""

    def __init__(self, event: tuple[int, ...]) -> None:
        halves = Halves(event[0])
        network = ConvNet((halves.transformed, 5, 2 * halves.transformed), 3)
        super().__init__(halves, network, SoftClamp(2.0))

    def forward(self, x: Tensor) -> Pair:
        first, second = self.partition.split(x)
        log_scale, shift = self._scale_and_shift(second)
        z = self.partition.join(first, second * log_scale.exp() + shift)
        return z, log_scale.flatten(1).sum(1)

    def inverse(self, z: Tensor) -> Pair:
        first, second = self.partition.split(z)
        log_scale, shift = self._scale_and_shift(second)
        x = self.partition.join(first, (second - shift) * (-log_scale).exp())
        return x, -log_scale.flatten(1).sum(1)


class OtherBoundBackwards(AffineCoupling):
    """The clamp's bound on the way back is not that of the way there."""

    def inverse(self, z: Tensor) -> Pair:
        clamp, self.clamp = self.clamp, SoftClamp(self.clamp.bound * 1.01)
        try:
            return super().inverse(z)
        finally:
            self.clamp = clamp


class UnclampedLogDet(AffineCoupling):
    """The log_det is taken before the clamp, in both directions."""

    def forward(self, x: Tensor) -> Pair:
        return super().forward(x)[0], self._raw(x)

    def inverse(self, z: Tensor) -> Pair:
        return super().inverse(z)[0], -self._raw(z)

    def _raw(self, x: Tensor) -> Tensor:
        raw: Tensor = self.conditioner(self.partition.split(x)[0]).chunk(2, 1)[0]
        return raw.flatten(1).sum(1)


class SameOrderBackwards(Compose):
    def inverse(self, z: Tensor) -> Pair:
        total = z.new_zeros(len(z))
        for module in self.transforms:
            assert isinstance(module, Transform)
            z, log_det = module.inverse(z)
            total = total + log_det
        return z, total


class LastLogDetOnly(Compose):
    def forward(self, x: Tensor) -> Pair:
        log_det = x.new_zeros(len(x))
        for module in self.transforms:
            x, log_det = module(x)
        return x, log_det


class FlagNotSaved(ChannelAffine):
    """What an activation norm does wrong: a buffer that matters stays out of the state_dict."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.register_buffer("offset", torch.randn(()), persistent=False)
        self.offset: Tensor

    def forward(self, x: Tensor) -> Pair:
        z, log_det = super().forward(x)
        return z + self.offset, log_det

    def inverse(self, z: Tensor) -> Pair:
        return super().inverse(z - self.offset)


class InitialisesInEval(ChannelAffine):
    """What another one does wrong: the first batch sets the shift, in evaluation too."""

    def forward(self, x: Tensor) -> Pair:
        with torch.no_grad():
            self.shift.copy_(-x.transpose(0, 1).flatten(1).mean(1))
        return super().forward(x)


class StuckOnCpu(Permutation):
    """The index is an attribute and does not move with the module."""

    def forward(self, x: Tensor) -> Pair:
        z, _ = super().forward(x)
        return z, torch.zeros(len(x), dtype=x.dtype)


class ConstantScale(ChannelAffine):
    """The scale never learns from the output."""

    def _like(self, x: Tensor) -> Pair:
        log_scale, shift = super()._like(x)
        return log_scale.detach(), shift


def half(kind: type[AffineCoupling]) -> Make:
    """A coupling of a class of the above."""

    def make(event: tuple[int, ...]) -> Transform:
        halves = Halves(event[0])
        return kind(halves, conditioner(halves, event), SoftClamp(2.0))

    return make


def chain(kind: type[Compose]) -> Make:
    """A composition of a class of the above, of parts that do not commute."""
    return lambda event: kind([ChannelAffine(event[0]), coupling(event), ChannelAffine(event[0])])


def shuffle(kind: type[Permutation]) -> Make:
    """A permutation of a class of the above that is not its own inverse."""
    return lambda event: kind([*range(1, event[0]), 0])


def affine(kind: type[ChannelAffine]) -> Make:
    """An affine map of a class of the above."""
    return lambda event: kind(event[0])


WRONG: dict[str, tuple[Make, set[str]]] = {
    "H W dropped": (affine(PositionsDropped), {"log_det"}),
    "sign flipped in both directions": (affine(SignFlipped), {"log_det"}),
    "scalar log_det": (affine(ScalarLogDet), {"outputs", "device"}),
    "float32 scalar zero": (shuffle(ZeroLogDet), {"outputs", "device"}),
    "log_det of another dtype": (affine(SinglePrecisionLogDet), {"outputs"}),
    "log_det detached": (affine(DetachedLogDet), {"gradients"}),
    "log_det summed over the batch": (half(SummedOverBatch), {"log_det", "rows", "round_trip"}),
    "batch statistics": (affine(BatchStatistics), {"rows", "round_trip", "log_det"}),
    "permutation not inverted": (shuffle(NotInverted), {"round_trip"}),
    "inverse in the wrong order": (affine(ShiftFirst), {"round_trip"}),
    "input changed in place": (affine(InPlace), {"outputs"}),
    "shape not looked at": (affine(Unchecked), {"wrong_shapes"}),
    "conditioned on the wrong half": (WrongHalf, {"log_det", "round_trip"}),
    "another clamp backwards": (half(OtherBoundBackwards), {"round_trip"}),
    "log_det before the clamp": (half(UnclampedLogDet), {"log_det"}),
    "composition undone in the same order": (chain(SameOrderBackwards), {"round_trip"}),
    "log_det of the last step only": (chain(LastLogDetOnly), {"log_det", "round_trip"}),
    "buffer not saved": (affine(FlagNotSaved), {"reload"}),
    "state set in evaluation": (affine(InitialisesInEval), {"eval_keeps_state"}),
    "log_det left on the CPU": (shuffle(StuckOnCpu), {"device"}),
    "gradient cut": (affine(ConstantScale), {"gradients"}),
}
