"""Table of constructors for the contract tests: a new transform adds one line."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flows import (
    MLP,
    ActNorm,
    Additive,
    Affine,
    ChannelAffine,
    Checkerboard,
    Compose,
    ConvNet,
    Coupling,
    FactorOut,
    Flatten,
    GlowNet,
    Halves,
    Inverse,
    InvertibleConv1x1,
    Law,
    LearnedClamp,
    Logit,
    MaskedAutoregressive,
    Partition,
    Permutation,
    Planar,
    Radial,
    RationalQuadraticSpline,
    ResNet,
    Scaling,
    SigmoidScale,
    SoftClamp,
    SoftplusScale,
    Squeeze,
    Transform,
)
from flows.recipes import glow, maf, neural_spline, nice, planar, radial, real_nvp

Shape = tuple[int, ...]  # of one event: (D,) or (C, H, W)
Make = Callable[[Shape], Transform]
Takes = Callable[[Shape], bool]


def divisible(event: Shape) -> bool:
    return event[0] >= 2


def vectors(event: Shape) -> bool:
    return len(event) == 1


def images(event: Shape) -> bool:
    return len(event) == 3


def even(event: Shape) -> bool:
    return images(event) and event[1] % 2 == event[2] % 2 == 0


def splittable(event: Shape) -> bool:
    """Return True for images that can be squeezed and for vectors of two or more dimensions."""
    return even(event) or (vectors(event) and divisible(event))


def flat(event: Shape) -> Shape:
    return (torch.Size(event).numel(),)


@dataclass(frozen=True)
class Case:
    """Line of the table.

    Attributes:
        name: shown by pytest.
        make: builds the transform for an event shape.
        takes: True for event shapes that the transform takes; it rejects others.
        latent: maps the event shape to the shape of its latents.
        domain: maps real numbers into the transform's domain.
        any_shape: True if the transform takes tensors of every shape.
        spread: factor of the deviation of the random parameters, below 1 for deep stacks.
    """

    name: str
    make: Make
    takes: Takes = lambda _: True
    latent: Callable[[Shape], Shape] = lambda event: event
    domain: Callable[[Tensor], Tensor] = lambda x: x
    any_shape: bool = False
    spread: float = 1.0

    def __str__(self) -> str:
        return self.name


def conditioner(partition: Partition, event: Shape, per_element: int = 2, kernel_size: int = 3) -> nn.Module:
    in_, out = partition.conditioning, per_element * partition.transformed
    if len(event) == 1:
        return nn.Sequential(nn.Linear(in_, 5), nn.Tanh(), nn.Linear(5, out))
    return ConvNet((in_, 5, out), kernel_size)


def coupling(
    event: Shape, *, swapped: bool = False, bound: float = 2.0, kernel_size: int = 3, law: Law | None = None
) -> Transform:
    halves = Halves(event[0], swapped=swapped)
    law = Affine(SoftClamp(bound)) if law is None else law
    return Coupling(halves, conditioner(halves, event, law.per_element, kernel_size), law)


def checkerboard(event: Shape, law: Law, *, swapped: bool = False) -> Transform:
    partition = Checkerboard(event[0], swapped=swapped)
    return Coupling(partition, conditioner(partition, event, law.per_element), law)


def learned_clamp(event: Shape) -> Transform:
    return coupling(event, law=Affine(LearnedClamp(Halves(event[0]).transformed)))


def library_networks(event: Shape) -> Transform:
    halves, swapped = Halves(event[0]), Halves(event[0], swapped=True)

    def sizes(partition: Halves) -> tuple[int, int, int]:
        return partition.conditioning, 5, 2 * partition.transformed

    if len(event) == 1:
        networks: list[nn.Module] = [MLP(s[0], (s[1], 4), s[2]) for s in (sizes(halves), sizes(swapped))]
    else:
        networks = [GlowNet(sizes(halves)), ResNet(sizes(swapped), 1)]
    return Compose([Coupling(halves, networks[0], Affine()), Coupling(swapped, networks[1], Affine())])


def steps(event: Shape) -> Transform:
    """Build two steps of a flow with every kind of layer."""
    return Compose(
        [
            Permutation.random(event[0]),
            coupling(event),
            ChannelAffine(event[0]),
            coupling(event, swapped=True, kernel_size=1),
            ChannelAffine(event[0]),
        ]
    )


def initialised_actnorm(event: Shape) -> Transform:
    layer = ActNorm(event[0]).train()
    layer.forward(5 + 3 * torch.randn(20, *event))
    return layer


class WithContext(Transform):
    """Conditional transform with a learned context, the same for every row."""

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform = transform
        self.context = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform.forward(x, self.context.expand(len(x), -1))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform.inverse(z, self.context.expand(len(z), -1))


def recipe(name: str, make: Make, takes: Takes = splittable) -> Case:
    """Build the case of a deep stack, where large parameters would leave no digits."""
    return Case(f"recipe {name}", make, takes, spread=0.3)


CASES = [
    Case("permutation", lambda event: Permutation.random(event[0])),
    Case("permutation of one order", lambda event: Permutation([*range(1, event[0]), 0])),
    Case("permutation, reversing", lambda event: Permutation.reversing(event[0])),
    Case("channel affine", lambda event: ChannelAffine(event[0])),
    Case("scaling", lambda event: Scaling(event[0])),
    Case("actnorm", lambda event: ActNorm(event[0])),
    Case("actnorm, initialised", initialised_actnorm),
    Case("invertible 1x1 convolution", lambda event: InvertibleConv1x1(event[0])),
    Case("planar", lambda event: Planar(event[0]), vectors),
    Case("radial", lambda event: Radial(event[0]), vectors),
    Case("inverse of planar", lambda event: Inverse(Planar(event[0])), vectors),
    Case(
        "squeeze",
        lambda event: Squeeze(event[0]),
        even,
        latent=lambda event: (4 * event[0], event[1] // 2, event[2] // 2),
    ),
    Case("flatten", Flatten, latent=flat),
    Case("factor out", lambda event: FactorOut(event[0], first_half_transform(event)), divisible),
    Case("logit", lambda _: Logit(), domain=lambda x: x.sigmoid(), any_shape=True),
    Case("affine coupling", coupling, divisible),
    Case("affine coupling, swapped", lambda event: coupling(event, swapped=True), divisible),
    Case("affine coupling, wide clamp", lambda event: coupling(event, bound=8.0), divisible),
    Case("affine coupling, learned clamp", learned_clamp, divisible),
    Case("affine coupling, sigmoid", lambda e: coupling(e, law=Affine(SigmoidScale())), divisible),
    Case("affine coupling, softplus", lambda e: coupling(e, law=Affine(SoftplusScale())), divisible),
    Case("additive coupling", lambda event: coupling(event, law=Additive()), divisible),
    Case("spline coupling", lambda e: coupling(e, law=RationalQuadraticSpline(5, 3.0)), divisible),
    Case("checkerboard, affine", lambda event: checkerboard(event, Affine()), images),
    Case("checkerboard, additive", lambda event: checkerboard(event, Additive(), swapped=True), images),
    Case(
        "checkerboard, spline",
        lambda e: checkerboard(e, RationalQuadraticSpline(3, 2.0), swapped=True),
        images,
    ),
    Case("library networks", library_networks, divisible),
    Case("masked autoregressive", lambda event: MaskedAutoregressive(event[0], (6, 5)), vectors),
    Case(
        "masked autoregressive, spline",
        lambda e: MaskedAutoregressive(e[0], (6,), RationalQuadraticSpline(3, 3.0)),
        vectors,
    ),
    Case("compose of one", lambda event: Compose([ChannelAffine(event[0])])),
    Case("compose of steps", steps, divisible),
    Case("compose of composes", lambda event: Compose([steps(event), steps(event)]), divisible),
    Case("inverse of steps", lambda event: Inverse(steps(event)), divisible),
    Case(
        "recipe nice",
        lambda e: nice(e, hidden=(5,)).transform,
        lambda event: torch.Size(event).numel() >= 2,
        latent=flat,
        spread=0.3,
    ),
    recipe("realnvp", lambda e: real_nvp(e, couplings=2, hidden=4, blocks=1).transform),
    recipe("glow", lambda e: glow(e, scales=1, steps=2, hidden=4).transform),
    recipe(
        "glow, two scales",
        lambda e: glow(e, scales=2, steps=1, hidden=4).transform,
        lambda event: splittable(event) and (vectors(event) or event[1] % 4 == event[2] % 4 == 0),
    ),
    recipe("spline", lambda e: neural_spline(e, scales=1, steps=1, hidden=4, bins=3).transform),
    Case("recipe maf", lambda e: maf(e, layers=2, hidden=(5,)).transform, latent=flat, spread=0.3),
    recipe(
        "realnvp given a context",
        lambda e: WithContext(real_nvp(e, couplings=2, hidden=4, blocks=1, context=2).transform),
    ),
    recipe(
        "glow given a context",
        lambda e: WithContext(glow(e, scales=1, steps=1, hidden=4, context=2).transform),
    ),
    Case("maf given a context", lambda e: WithContext(MaskedAutoregressive(e[0], (6,), context=2)), vectors),
    recipe("planar", lambda event: planar(event[0], depth=2).transform, vectors),
    recipe("radial", lambda event: radial(event[0], depth=2).transform, vectors),
]


def first_half_transform(event: Shape) -> Transform:
    """Build the inner transform of `FactorOut`."""
    kept = (event[0] + 1) // 2
    return Compose([Permutation.random(kept), ChannelAffine(kept)])
