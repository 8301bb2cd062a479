"""Flows of the same family as several libraries build them.

Every recipe takes the number of features and one width. `matched` chooses the other library's width so that
it has at least as many parameters as ours. Everything else is what its documentation shows, or its default,
unless a comment says why not.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from flows.recipes import maf, neural_spline, real_nvp

_BINS = 8
_BOUND = 4.0  # of the splines, where the library lets one choose it; zuko's is 5


@dataclass(frozen=True)
class Recipe:
    """A flow of one library.

    Attributes:
        family: flows of one family are compared with each other.
        library: whose.
        make: makes a module with `log_prob(x, context=None)` of the number of features and the width.
    """

    family: str
    library: str
    make: Callable[[int, int], nn.Module]

    @property
    def name(self) -> str:
        return f"{self.family}, {self.library}"


@dataclass(frozen=True)
class Pair:
    """Two flows of about the same size, ours and another library's, with their widths."""

    ours: Recipe
    width: int
    theirs: Recipe
    their_width: int


class Density(nn.Module):
    """Another library's model with the one method that `training.density.fit` uses.

    Args:
        model: with the parameters.
        log_prob: maps samples (N, D) to log-densities (N,).
    """

    def __init__(self, model: nn.Module, log_prob: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self._log_prob = log_prob

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats, (N,)."""
        if context is not None:
            raise ValueError("densities are compared without context")
        return self._log_prob(x)


def parameters(model: nn.Module) -> int:
    """Number of trained parameters; weights that a mask keeps at 0 count in every library."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def matched(features: int, ours: Recipe, width: int, theirs: Recipe) -> Pair:
    """Pair a flow of ours with the smallest of theirs that is not smaller."""
    wanted = parameters(ours.make(features, width))
    fits = (w for w in itertools.count(2) if parameters(theirs.make(features, w)) >= wanted)
    return Pair(ours, width, theirs, next(fits))


def _our_affine(layers: int, features: int, width: int) -> nn.Module:
    return real_nvp((features,), couplings=layers, hidden=width)


def _our_spline(layers: int, features: int, width: int) -> nn.Module:
    return neural_spline((features,), steps=layers, hidden=width, bins=_BINS, bound=_BOUND)


def _our_maf(layers: int, features: int, width: int) -> nn.Module:
    return maf((features,), layers=layers, hidden=(width, width))


def _zuko(name: str, layers: int, features: int, width: int) -> nn.Module:
    from zuko import flows as zuko

    # passes=2 makes couplings of the autoregressive layers, as zuko's documentation says.
    settings = {"bins": _BINS, "passes": 2} if name == "NSF" else {}
    model = getattr(zuko, name)(features, transforms=layers, hidden_features=(width, width), **settings)
    return Density(model, lambda x: model().log_prob(x))


def _normflows(
    step: Callable[[int, int], list[nn.Module]], layers: int, features: int, width: int
) -> nn.Module:
    import normflows as nf

    steps = [part for _ in range(layers) for part in step(features, width)]
    model = nf.NormalizingFlow(nf.distributions.DiagGaussian(features), steps)
    return Density(model, model.log_prob)


def _normflows_affine(features: int, width: int) -> list[nn.Module]:
    import normflows as nf

    half = features // 2
    network = nf.nets.MLP([half, width, width, 2 * half], init_zeros=True)
    return [nf.flows.AffineCouplingBlock(network), nf.flows.Permute(features, mode="swap")]


def _normflows_spline(features: int, width: int) -> list[nn.Module]:
    import normflows as nf

    spline = nf.flows.CoupledRationalQuadraticSpline(
        features, num_blocks=1, num_hidden_channels=width, num_bins=_BINS, tail_bound=_BOUND
    )
    return [spline, nf.flows.LULinearPermute(features)]


def _normflows_maf(features: int, width: int) -> list[nn.Module]:
    import normflows as nf

    # Its one pass goes from latents to data, and densities take D passes. `Reverse` turns that round, but its
    # scales are at most 1: no density rises above the base's then, and it does much worse.
    layer = nf.flows.MaskedAffineAutoregressive(features, width, num_blocks=1)
    return [layer, nf.flows.Permute(features, mode="swap")]


Maker = Callable[[int, int, int], nn.Module]
_FAMILIES: dict[str, tuple[Maker, dict[str, Maker]]] = {
    "affine coupling": (
        _our_affine,
        {"zuko": partial(_zuko, "RealNVP"), "normflows": partial(_normflows, _normflows_affine)},
    ),
    "spline coupling": (
        _our_spline,
        {"zuko": partial(_zuko, "NSF"), "normflows": partial(_normflows, _normflows_spline)},
    ),
    "MAF": (_our_maf, {"zuko": partial(_zuko, "MAF"), "normflows": partial(_normflows, _normflows_maf)}),
}


def pairs(features: int, sizes: dict[str, tuple[int, int]]) -> list[Pair]:
    """Our flow of every family with each other library's.

    Args:
        features: of the samples, an even number.
        sizes: layers, and width of ours, by family.
    """
    found = []
    for family, (ours, others) in _FAMILIES.items():
        layers, width = sizes[family]
        recipe = Recipe(family, "flows", partial(ours, layers))
        found += [
            matched(features, recipe, width, Recipe(family, library, partial(make, layers)))
            for library, make in others.items()
        ]
    return found
