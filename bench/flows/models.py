"""The flows that are compared: our recipes, and the same families as other libraries build them.

Every recipe takes the number of features and one width. Widths are chosen so that a pair has the same size:
`matched` gives the other library at least as many parameters as ours has. All else of the other libraries is
what their documentation shows, or their default, unless a comment says why not.

The other libraries are imported where they are used: `pip install -e '.[bench]'`.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from flows.recipes import maf, neural_spline, planar, real_nvp

# Of all spline flows: K, and B where the library lets one choose it (zuko's is 5).
_BINS = 8
_BOUND = 4.0


@dataclass(frozen=True)
class Recipe:
    """A flow of one library, whose size depends on one width.

    Attributes:
        family: flows of one family are compared with each other.
        library: whose.
        make: of the number of features and the width, a module with `log_prob(x, context=None)`.
    """

    family: str
    library: str
    make: Callable[[int, int], nn.Module]

    @property
    def name(self) -> str:
        return f"{self.family}, {self.library}"


@dataclass(frozen=True)
class Pair:
    """Two flows of about the same size.

    Attributes:
        ours: of this library.
        width: of ours.
        theirs: of another library.
        their_width: the smallest with which theirs has at least as many parameters as ours.
    """

    ours: Recipe
    width: int
    theirs: Recipe
    their_width: int


class Density(nn.Module):
    """Another library's model behind the one method that `training.density.fit` uses.

    Args:
        model: with the parameters.
        log_prob: of samples (N, D), the log-densities (N,).
    """

    def __init__(self, model: nn.Module, log_prob: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self._log_prob = log_prob

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(N,) in nats."""
        if context is not None:
            raise ValueError("the benches compare densities without context")
        return self._log_prob(x)


def parameters(model: nn.Module) -> int:
    """How many numbers are learned; weights that a mask keeps at 0 count, in every library alike."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def matched(features: int, ours: Recipe, width: int, theirs: Recipe) -> Pair:
    """The pair of a flow of ours and the smallest of theirs that is not smaller."""
    wanted = parameters(ours.make(features, width))
    fits = (w for w in itertools.count(2) if parameters(theirs.make(features, w)) >= wanted)
    return Pair(ours, width, theirs, next(fits))


def _our_affine(layers: int, features: int, width: int) -> nn.Module:
    return real_nvp((features,), couplings=layers, hidden=width)


def _our_spline(layers: int, features: int, width: int) -> nn.Module:
    return neural_spline((features,), steps=layers, hidden=width, bins=_BINS, bound=_BOUND)


def _our_maf(layers: int, features: int, width: int) -> nn.Module:
    return maf((features,), layers=layers, hidden=(width, width))


def _our_planar(features: int, width: int) -> nn.Module:
    return planar(features, depth=width)


def _zuko_affine(layers: int, features: int, width: int) -> nn.Module:
    from zuko.flows import RealNVP

    return _of_zuko(RealNVP(features, transforms=layers, hidden_features=(width, width)))


def _zuko_spline(layers: int, features: int, width: int) -> nn.Module:
    from zuko.flows import NSF

    # passes=2 makes couplings of the autoregressive layers, as zuko's documentation says.
    return _of_zuko(NSF(features, bins=_BINS, transforms=layers, passes=2, hidden_features=(width, width)))


def _zuko_maf(layers: int, features: int, width: int) -> nn.Module:
    from zuko.flows import MAF

    return _of_zuko(MAF(features, transforms=layers, hidden_features=(width, width)))


def _of_zuko(model: nn.Module) -> nn.Module:
    return Density(model, lambda x: model().log_prob(x))


def _normflows_affine(layers: int, features: int, width: int) -> nn.Module:
    import normflows as nf

    halves = ((features + 1) // 2, features // 2)
    if halves[0] != halves[1]:
        raise ValueError(f"normflows swaps halves of equal size; got {features} features")
    steps: list[nn.Module] = []
    for _ in range(layers):
        network = nf.nets.MLP([halves[0], width, width, 2 * halves[1]], init_zeros=True)
        steps += [nf.flows.AffineCouplingBlock(network), nf.flows.Permute(features, mode="swap")]
    return _of_normflows(features, steps)


def _normflows_spline(layers: int, features: int, width: int) -> nn.Module:
    import normflows as nf

    steps: list[nn.Module] = []
    for _ in range(layers):
        spline = nf.flows.CoupledRationalQuadraticSpline(
            features, num_blocks=1, num_hidden_channels=width, num_bins=_BINS, tail_bound=_BOUND
        )
        steps += [spline, nf.flows.LULinearPermute(features)]
    return _of_normflows(features, steps)


def _normflows_maf(layers: int, features: int, width: int) -> nn.Module:
    import normflows as nf

    steps: list[nn.Module] = []
    for _ in range(layers):
        # As it comes, its one pass goes from latents to data, and densities take D passes. `Reverse` turns
        # that round, but its scales are at most 1: reversed, no density rises above the base's, and it
        # does much worse.
        layer = nf.flows.MaskedAffineAutoregressive(features, width, num_blocks=1)
        steps += [layer, nf.flows.Permute(features, mode="swap")]
    return _of_normflows(features, steps)


def _of_normflows(features: int, steps: list[nn.Module]) -> nn.Module:
    import normflows as nf

    model = nf.NormalizingFlow(nf.distributions.DiagGaussian(features), steps)
    return Density(model, model.log_prob)


def _nflows_maf(layers: int, features: int, width: int) -> nn.Module:
    from nflows.flows import MaskedAutoregressiveFlow

    model = MaskedAutoregressiveFlow(features, width, num_layers=layers, num_blocks_per_layer=1)
    return Density(model, model.log_prob)


def _nflows_spline(layers: int, features: int, width: int) -> nn.Module:
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow
    from nflows.nn.nets import ResidualNet
    from nflows.transforms import (
        CompositeTransform,
        LULinear,
        PiecewiseRationalQuadraticCouplingTransform,
        RandomPermutation,
    )
    from nflows.utils.torchutils import create_alternating_binary_mask

    # As in the experiments of the spline paper (github.com/bayesiains/nsf), of which this library is part.
    steps: list[nn.Module] = []
    for layer in range(layers):
        coupling = PiecewiseRationalQuadraticCouplingTransform(
            create_alternating_binary_mask(features, even=layer % 2 == 0),
            lambda in_, out: ResidualNet(in_, out, hidden_features=width, num_blocks=1),
            num_bins=_BINS,
            tails="linear",
            tail_bound=_BOUND,
            apply_unconditional_transform=True,
        )
        steps += [RandomPermutation(features), LULinear(features), coupling]
    model = Flow(CompositeTransform(steps), StandardNormal([features]))
    return Density(model, model.log_prob)


def recipes(*, affine: int, spline: int, autoregressive: int) -> dict[tuple[str, str], Recipe]:
    """Every family in every library, by both names, with as many layers of each family."""
    makers: dict[tuple[str, str], tuple[Callable[[int, int, int], nn.Module], int]] = {
        ("affine coupling", "flows"): (_our_affine, affine),
        ("affine coupling", "zuko"): (_zuko_affine, affine),
        ("affine coupling", "normflows"): (_normflows_affine, affine),
        ("spline coupling", "flows"): (_our_spline, spline),
        ("spline coupling", "zuko"): (_zuko_spline, spline),
        ("spline coupling", "normflows"): (_normflows_spline, spline),
        ("spline coupling", "nflows"): (_nflows_spline, spline),
        ("MAF", "flows"): (_our_maf, autoregressive),
        ("MAF", "zuko"): (_zuko_maf, autoregressive),
        ("MAF", "normflows"): (_normflows_maf, autoregressive),
        ("MAF", "nflows"): (_nflows_maf, autoregressive),
    }
    made = {key: Recipe(*key, partial(make, layers)) for key, (make, layers) in makers.items()}
    return {**made, ("planar", "flows"): Recipe("planar", "flows", _our_planar)}
