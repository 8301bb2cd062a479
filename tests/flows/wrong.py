"""Transforms that are wrong on purpose, and which checks of the contract must see it.

Errors like these have happened to libraries of normalizing flows.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor
from torch.nn.functional import softplus

import flows.planar
import flows.radial
from flows import (
    ActNorm,
    Affine,
    ChannelAffine,
    Checkerboard,
    Compose,
    ConvNet,
    Coupling,
    FactorOut,
    Halves,
    Inverse,
    InvertibleConv1x1,
    LearnedClamp,
    Logit,
    MaskedAutoregressive,
    Permutation,
    Planar,
    Radial,
    RationalQuadraticSpline,
    SoftClamp,
    Squeeze,
    Transform,
)
from flows.recompute import Step, run_and_recompute
from tests.flows.cases import Case, Shape, conditioner, coupling, coupling_of_first, even, vectors

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

    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        return super().forward(x)[0], torch.zeros(())


class SinglePrecisionLogDet(ChannelAffine):
    def _log_det(self, x: Tensor) -> Tensor:
        return super()._log_det(x).float()


class DetachedLogDet(ChannelAffine):
    """The values are right, and the loss never learns from them."""

    def _log_det(self, x: Tensor) -> Tensor:
        return super()._log_det(x).detach()


class SummedOverBatch(Coupling):
    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        z, log_det = super().forward(x)
        return z, log_det.sum().expand(len(x))


class BatchStatistics(ChannelAffine):
    """A row's result depends on who else is in the batch."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        z, log_det = super().forward(x)
        return z - x.mean(0), log_det


class NotInverted(Permutation):
    def inverse(self, z: Tensor, context: Tensor | None = None) -> Pair:
        return self.forward(z)


class ShiftFirst(ChannelAffine):
    """Undone in the wrong order: (z / scale) - shift."""

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Pair:
        scale, shift = (p.view(1, -1, *[1] * (z.ndim - 2)) for p in (self.log_scale.exp(), self.shift))
        return z / scale - shift, super().inverse(z)[1]


class InPlace(ChannelAffine):
    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        log_det = super().forward(x)[1]
        x.mul_(self._like(x)[0].exp())
        return x.add_(self._like(x)[1]), log_det


class Unchecked(ChannelAffine):
    """No look at the shape: other numbers of channels broadcast, or fail in torch's words."""

    def _like(self, x: Tensor) -> Pair:
        shape = (1, -1) + (1,) * (x.ndim - 2)
        return self.log_scale.view(shape), self.shift.view(shape)


class WrongHalf(Coupling):
    """The conditioner sees the half that is transformed."""

    def __init__(self, event: Shape) -> None:
        halves = Halves(event[0])
        super().__init__(halves, ConvNet((halves.transformed, 5, 2 * halves.transformed), 3), Affine())

    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        first, second = self.partition.split(x)
        z, log_derivatives = self.law.forward(second, self._law_parameters(second, None))
        return self.partition.join(first, z), self.partition.total(log_derivatives)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Pair:
        first, second = self.partition.split(z)
        x, log_derivatives = self.law.inverse(second, self._law_parameters(second, None))
        return self.partition.join(first, x), self.partition.total(log_derivatives)


class OtherBoundBackwards(Affine):
    """The clamp's bound on the way back is not that of the way there."""

    def inverse(self, z: Tensor, parameters: Tensor) -> Pair:
        return Affine(SoftClamp(2.02)).inverse(z, parameters)


class UnclampedLogDet(Affine):
    """The log_det is taken before the clamp, in both directions."""

    def forward(self, x: Tensor, parameters: Tensor) -> Pair:
        return super().forward(x, parameters)[0], parameters[:, 0]

    def inverse(self, z: Tensor, parameters: Tensor) -> Pair:
        return super().inverse(z, parameters)[0], -parameters[:, 0]


class ShiftInLogDet(Affine):
    """Shift and log-scale change places in the log_det, in both directions."""

    def forward(self, x: Tensor, parameters: Tensor) -> Pair:
        return super().forward(x, parameters)[0], parameters[:, 1]

    def inverse(self, z: Tensor, parameters: Tensor) -> Pair:
        return super().inverse(z, parameters)[0], -parameters[:, 1]


class IdentityHalfCounted(Coupling):
    """Every element counts as transformed."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        z, log_det = super().forward(x)
        return z, log_det + self.partition.split(x)[0].flatten(1).sum(1) * 0.01

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Pair:
        x, log_det = super().inverse(z)
        return x, log_det - self.partition.split(z)[0].flatten(1).sum(1) * 0.01


class ParametersShared(Coupling):
    """The conditioner gives one parameter for all positions, which broadcasts and is counted once."""

    def _law_parameters(self, x_a: Tensor, context: Tensor | None) -> Tensor:
        parameters = super()._law_parameters(x_a, context)
        return parameters.mean((3, 4), keepdim=True)


class WholeBoardCounted(Checkerboard):
    """The log-derivatives of the colour that passes are counted too."""

    def total(self, log_derivatives: Tensor) -> Tensor:
        return log_derivatives.flatten(1).sum(1)


class BoardSeen(Checkerboard):
    """The conditioner sees the colour that is transformed."""

    def split(self, x: Tensor) -> Pair:
        return x, x


class SplineSlopeInX(RationalQuadraticSpline):
    """The derivative lacks the square of the bin's slope."""

    def forward(self, x: Tensor, parameters: Tensor) -> Pair:
        z, log_derivatives = super().forward(x, parameters)
        return z, log_derivatives / 2

    def inverse(self, z: Tensor, parameters: Tensor) -> Pair:
        x, log_derivatives = super().inverse(z, parameters)
        return x, log_derivatives / 2


class SplineTailsCut(RationalQuadraticSpline):
    """Beyond the bound everything becomes the bound, in both directions."""

    def forward(self, x: Tensor, parameters: Tensor) -> Pair:
        return super().forward(x.clamp(-self.bound, self.bound), parameters)


class SplineNotInverted(RationalQuadraticSpline):
    """The inverse's derivative is taken without its sign."""

    def inverse(self, z: Tensor, parameters: Tensor) -> Pair:
        x, log_derivatives = super().inverse(z, parameters)
        return x, -log_derivatives


class SameOrderBackwards(Compose):
    def inverse(self, z: Tensor, context: Tensor | None = None) -> Pair:
        total = z.new_zeros(len(z))
        for module in self.transforms:
            assert isinstance(module, Transform)
            z, log_det = module.inverse(z)
            total = total + log_det
        return z, total


class LastLogDetOnly(Compose):
    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
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

    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        z, log_det = super().forward(x)
        return z + self.offset, log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Pair:
        return super().inverse(z - self.offset)


class InitialisesInEval(ChannelAffine):
    """What another one does wrong: the first batch sets the shift, in evaluation too."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        with torch.no_grad():
            self.shift.copy_(-x.transpose(0, 1).flatten(1).mean(1))
        return super().forward(x)


class StuckOnCpu(Permutation):
    """The index is an attribute and does not move with the module."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        z, _ = super().forward(x)
        return z, torch.zeros(len(x), dtype=x.dtype)


class ConstantScale(ChannelAffine):
    """The scale never learns from the output."""

    def _like(self, x: Tensor) -> Pair:
        log_scale, shift = super()._like(x)
        return log_scale.detach(), shift


class Forgetful(ActNorm):
    """A batch that sets it does so whatever was learned."""

    def _initialise(self, x: Tensor) -> None:
        for parameter in self.parameters():
            torch.nn.init.zeros_(parameter)
        super()._initialise(x)


class UnsavedFlag(Forgetful):
    """That it was set is not in the state_dict: training on sets it anew."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        del self.initialised
        self.register_buffer("initialised", torch.tensor(False), persistent=False)


class SetInEvaluation(ActNorm):
    """The first batch sets it, whatever the mode."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        if not self.initialised:
            self._initialise(x)
        return super().forward(x)


class SetByEveryBatch(Forgetful):
    """Each training batch sets it, as batch normalisation would."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        if self.training:
            self._initialise(x)
        return super().forward(x)


class PlanarUnguarded(Planar):
    """w.u is not kept above -1, and f folds."""

    def _push(self) -> tuple[Tensor, Tensor, Tensor]:
        square = self.w.square().sum()
        c = self.w @ self.u - 3 * square
        return self.u - 3 * self.w, c, 1 + c


class PlanarTanhSlope(Planar):
    """tanh in place of its derivative, in both directions."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        z, _ = super().forward(x)
        return z, self._wrong(x @ self.w + self.b)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Pair:
        x, _ = super().inverse(z)
        return x, -self._wrong(x @ self.w + self.b)

    def _wrong(self, a: Tensor) -> Tensor:
        _, c, _ = self._push()
        return torch.log1p(c.abs() * torch.tanh(a).square())


class PlanarPaperShift(Planar):
    """The inverse uses the paper's m, the forward pass ours."""

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Pair:
        with mock.patch.object(flows.planar, "_UNIT", 0.0):
            return super().inverse(z)


class PlanarFewSteps(Planar):
    """The search ends before it has found the solution."""

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Pair:
        with mock.patch.object(flows.planar, "_NEWTON_STEPS", 0):
            return super().inverse(z)


class PlanarSearchDetached(Planar):
    """The solution of the search has no gradient."""

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Pair:
        solve = flows.planar._solve
        with mock.patch.object(flows.planar, "_solve", lambda *a: solve(*a).detach()):
            return super().inverse(z)


class RadialOneTooMany(Radial):
    """D in place of D - 1, in both directions."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        with self._one_more():
            return super().forward(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Pair:
        with self._one_more():
            return super().inverse(z)

    @contextmanager
    def _one_more(self) -> Iterator[None]:
        right = flows.radial._log_det

        def wrong(r: Tensor, alpha: Tensor, total: Tensor, features: int) -> Tensor:
            return right(r, alpha, total, features + 1)

        with mock.patch.object(flows.radial, "_log_det", wrong):
            yield


class RadialOtherRoot(Radial):
    """The quadratic equation's other solution."""

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Pair:
        x, log_det = super().inverse(z)
        alpha, total = softplus(self.raw_alpha), softplus(self.raw_sum)
        offset = z - self.center
        r = offset.norm(dim=1)
        q = r - total
        other = (q - (q.square() + 4 * alpha * r).sqrt()) / 2
        return self.center + offset * ((alpha + other) / (total + other))[:, None], log_det + 0 * x.sum()


class UnorderedConv(InvertibleConv1x1):
    """The inverse forgets the permutation P."""

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Pair:
        order, self.order = self.order, torch.arange(len(self.order), device=z.device)
        try:
            return super().inverse(z)
        finally:
            self.order = order


class ConvPositionsDropped(InvertibleConv1x1):
    """log det = sum(s) for images too."""

    def _log_det(self, x: Tensor) -> Tensor:
        return self.log_diagonal.sum().expand(len(x))


class ConvDiagonalOfU(InvertibleConv1x1):
    """U keeps what lies on its diagonal beside exp(s)."""

    def _factors(self) -> Pair:
        lower, upper = super()._factors()
        return lower, upper + self.upper.diagonal().diag() + 0.1 * torch.eye(len(upper), dtype=upper.dtype)


class SqueezeOtherOrder(Squeeze):
    """The block is read by rows and written by columns."""

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Pair:
        x, log_det = super().inverse(z)
        n, c, h, w = x.shape
        blocks = x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(3, 5)
        return blocks.reshape(n, c, h, w), log_det


class FactoredLogDetLost(FactorOut):
    """The part that goes on does not count, in both directions."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        z, log_det = super().forward(x)
        return z, 0 * log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Pair:
        x, log_det = super().inverse(z)
        return x, 0 * log_det


class SeesItself(MaskedAutoregressive):
    """The output's mask has >= for >: each dimension sees itself."""

    def __init__(self, features: int) -> None:
        super().__init__(features, (6,))
        last = self.network[-1]
        degrees = 1 + torch.arange(6) % max(features - 1, 1)
        outputs = torch.arange(1, features + 1).repeat(2)
        last.register_buffer("mask", outputs[:, None] >= degrees, persistent=False)


class OnePassTooFew(MaskedAutoregressive):
    """The inverse stops one dimension early."""

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Pair:
        known = torch.arange(self.features)
        x, log_derivatives = torch.zeros_like(z), torch.zeros_like(z)
        for i in range(self.features - 1):
            found, log_derivatives = self.law.inverse(z, self._law_parameters(self.network, x, context))
            x = torch.where(known <= i, found, 0.0)
        return x, log_derivatives.sum(1)


class RoundedByAutocast(MaskedAutoregressive):
    """Autocast rounds the parameters, and the law with them."""

    def _law_parameters(
        self, network: Callable[[Tensor], Tensor], x: Tensor, context: Tensor | None
    ) -> Tensor:
        parameters = network(x)
        return parameters.reshape(len(x), self.law.per_element, self.features)


class ARowOffUnderAutocast(ChannelAffine):
    """Under autocast one row of many comes back further off than bfloat16 would round it."""

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Pair:
        x, log_det = super().inverse(z)
        if torch.is_autocast_enabled("cpu"):
            x[:1] += 0.1
        return x, log_det


class PaperLogit(Logit):
    """The log_det of the paper's a + (1 - a) x for the map of its code, in both directions."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        z, log_det = super().forward(x)
        return z, log_det + self._difference(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Pair:
        x, log_det = super().inverse(z)
        return x, log_det - self._difference(z)

    def _difference(self, x: Tensor) -> float:
        return x.shape[1:].numel() * (math.log(1 - self.alpha) - math.log(1 - 2 * self.alpha))


class InverseSameLogDet(Inverse):
    """Turned round, but the log_dets stay where they were."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        z, log_det = super().forward(x)
        return z, -log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Pair:
        x, log_det = super().inverse(z)
        return x, -log_det


class RecomputedFromInput(Compose):
    """The backward pass undoes steps that were not done, and recomputes at the wrong place."""

    def _run(self, steps: list[Step], x: Tensor, context: Tensor | None) -> Pair:
        return run_and_recompute([Step(s.apply, s.apply, s.module) for s in steps], x, context)


class LearnedClampForgotten(LearnedClamp):
    """The learned factor never learns."""

    def forward(self, a: Tensor) -> Tensor:
        return self.scale.detach().view((1, -1) + (1,) * (a.ndim - 2)) * torch.tanh(a)


def half(kind: type[Coupling], law: type[Affine] = Affine) -> Case:
    """A coupling of a class, or with a law, of the above."""

    def make(event: Shape) -> Transform:
        halves = Halves(event[0])
        return kind(halves, conditioner(halves, event), law())

    return Case(kind.__name__, make)


def spline(law: type[RationalQuadraticSpline]) -> Case:
    """A coupling with a spline of a class of the above."""
    return Case(law.__name__, lambda event: coupling(event, law=law(4, 3.0)))


def board(partition: type[Checkerboard]) -> Case:
    """A coupling over a checkerboard of a class of the above."""

    def make(event: Shape) -> Transform:
        parts = partition(event[0])
        return Coupling(parts, conditioner(parts, event), Affine())

    return Case(partition.__name__, make)


def chain(kind: type[Compose]) -> Case:
    """A composition of a class of the above, of parts that do not commute."""
    return Case(
        kind.__name__, lambda event: kind([ChannelAffine(event[0]), coupling(event), ChannelAffine(event[0])])
    )


def shuffle(kind: type[Permutation]) -> Case:
    """A permutation of a class of the above that is not its own inverse."""
    return Case(kind.__name__, lambda event: kind([*range(1, event[0]), 0]))


def sized(kind: type[ChannelAffine | Planar | Radial | InvertibleConv1x1 | SeesItself]) -> Case:
    """A transform of a class that takes the number of channels."""
    return Case(kind.__name__, lambda event: kind(event[0]))


def vector(kind: type[Planar | Radial | SeesItself]) -> Case:
    """The same, of vectors alone."""
    return Case(kind.__name__, lambda event: kind(event[0]), vectors)


SQUEEZE = Case(
    "squeeze",
    lambda event: SqueezeOtherOrder(event[0]),
    even,
    latent=lambda event: (4 * event[0], event[1] // 2, event[2] // 2),
)
FACTOR_OUT = Case("factor out", lambda event: FactoredLogDetLost(event[0], coupling_of_first(event)))
# Near the plane, where the fold is.
UNGUARDED = Case("unguarded", lambda e: PlanarUnguarded(e[0]), vectors, domain=lambda x: 0.1 * x)
LOGIT = Case("logit", lambda _: PaperLogit(), domain=lambda x: x.sigmoid(), any_shape=True)
MADE = Case("made", lambda event: OnePassTooFew(event[0], (6,)), vectors)
LEARNED = Case(
    "learned clamp", lambda e: coupling(e, law=Affine(LearnedClampForgotten(Halves(e[0]).transformed)))
)

WRONG: dict[str, tuple[Case, set[str]]] = {
    "H W dropped": (sized(PositionsDropped), {"log_det"}),
    "sign flipped in both directions": (sized(SignFlipped), {"log_det"}),
    "scalar log_det": (sized(ScalarLogDet), {"outputs", "device"}),
    "float32 scalar zero": (shuffle(ZeroLogDet), {"outputs", "device"}),
    "log_det of another dtype": (sized(SinglePrecisionLogDet), {"outputs"}),
    "log_det detached": (sized(DetachedLogDet), {"gradients"}),
    "log_det summed over the batch": (half(SummedOverBatch), {"log_det", "rows", "round_trip", "vmap"}),
    "batch statistics": (sized(BatchStatistics), {"rows", "round_trip", "log_det", "vmap"}),
    "permutation not inverted": (shuffle(NotInverted), {"round_trip"}),
    "inverse in the wrong order": (sized(ShiftFirst), {"round_trip"}),
    "input changed in place": (sized(InPlace), {"outputs"}),
    "shape not looked at": (sized(Unchecked), {"wrong_shapes"}),
    "conditioned on the wrong half": (Case("wrong half", WrongHalf), {"log_det", "round_trip"}),
    "another clamp backwards": (half(Coupling, OtherBoundBackwards), {"round_trip"}),
    "log_det before the clamp": (half(Coupling, UnclampedLogDet), {"log_det"}),
    "log_det of the shift": (half(Coupling, ShiftInLogDet), {"log_det"}),
    "identity half in the log_det": (half(IdentityHalfCounted), {"log_det"}),
    "one parameter for all positions": (half(ParametersShared), {"log_det"}),
    "composition undone in the same order": (chain(SameOrderBackwards), {"round_trip"}),
    "log_det of the last step only": (chain(LastLogDetOnly), {"log_det", "round_trip"}),
    "buffer not saved": (sized(FlagNotSaved), {"reload"}),
    "state set in evaluation": (sized(InitialisesInEval), {"eval_keeps_state"}),
    "log_det left on the CPU": (shuffle(StuckOnCpu), {"device"}),
    "gradient cut": (sized(ConstantScale), {"gradients"}),
    "actnorm's flag not saved": (sized(UnsavedFlag), {"reload"}),
    "actnorm set in evaluation": (sized(SetInEvaluation), {"eval_keeps_state"}),
    "actnorm set by every batch": (sized(SetByEveryBatch), {"reload"}),
    "planar without its guard": (UNGUARDED, {"round_trip", "log_det"}),
    "planar with tanh for its slope": (vector(PlanarTanhSlope), {"log_det"}),
    "planar inverted with another m": (vector(PlanarPaperShift), {"round_trip"}),
    "planar's search cut short": (vector(PlanarFewSteps), {"round_trip"}),
    "planar's search without a gradient": (vector(PlanarSearchDetached), {"gradients", "log_det"}),
    "radial with D for D - 1": (vector(RadialOneTooMany), {"log_det"}),
    "radial's other root": (vector(RadialOtherRoot), {"round_trip", "log_det"}),
    "1x1 convolution without P backwards": (sized(UnorderedConv), {"round_trip"}),
    "1x1 convolution, H W dropped": (sized(ConvPositionsDropped), {"log_det"}),
    "1x1 convolution, diagonal of U kept": (sized(ConvDiagonalOfU), {"log_det"}),
    "squeeze in another order backwards": (SQUEEZE, {"round_trip"}),
    "log_det lost where channels are factored out": (FACTOR_OUT, {"log_det"}),
    "checkerboard counted whole": (board(WholeBoardCounted), {"log_det"}),
    "checkerboard seen whole": (board(BoardSeen), {"round_trip", "log_det"}),
    "spline's slope halved": (spline(SplineSlopeInX), {"log_det"}),
    "spline's tails cut": (spline(SplineTailsCut), {"round_trip"}),
    "spline's inverse with the other sign": (spline(SplineNotInverted), {"log_det", "round_trip"}),
    "mask lets a dimension see itself": (vector(SeesItself), {"round_trip", "log_det"}),
    "autoregressive inverse, a pass too few": (MADE, {"round_trip"}),
    "autoregressive network rounded by autocast": (
        Case("rounded", lambda event: RoundedByAutocast(event[0], (6,)), vectors),
        {"autocast"},
    ),
    "a row off under autocast": (sized(ARowOffUnderAutocast), {"autocast"}),
    "logit with the paper's factor": (LOGIT, {"log_det"}),
    "turned round without the log_dets": (
        Case("turned", lambda event: InverseSameLogDet(ChannelAffine(event[0]))),
        {"log_det"},
    ),
    "recomputed at the wrong place": (chain(RecomputedFromInput), {"gradients"}),
    "learned clamp without a gradient": (LEARNED, {"gradients"}),
}
