"""Flows of two features from several libraries, in pairs of one family and size.

Widths are such that the other library's flow is the smallest that is not smaller than ours. All other
settings are those of its documentation, or its defaults; comments name the exceptions.
"""

from collections.abc import Callable

from torch import Tensor, nn

from flows.recipes import maf, neural_spline, real_nvp

_FEATURES, _BINS, _BOUND = 2, 8, 4.0  # zuko's splines end at 5
_AFFINE_LAYERS, _SPLINE_LAYERS, _MAF_LAYERS = 6, 4, 4
OURS = "FlowGauge"


class Density(nn.Module):
    """Adapter: another library's model with the method that `training.density.fit` calls.

    Args:
        model: holds the parameters.
        log_prob: maps samples (N, D) to log-densities (N,).
    """

    def __init__(self, model: nn.Module, log_prob: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self._log_prob = log_prob

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the log-density in nats, (N,)."""
        del context
        return self._log_prob(x)


def parameters(model: nn.Module) -> int:
    """Count the trained parameters, including weights that a mask keeps at 0."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _zuko(name: str, layers: int, width: int, **settings: int) -> nn.Module:
    from zuko import flows as zuko

    make = getattr(zuko, name)
    model = make(_FEATURES, transforms=layers, hidden_features=(width, width), **settings)
    return Density(model, lambda x: model().log_prob(x))


def _normflows(step: Callable[[], list[nn.Module]], layers: int) -> nn.Module:
    import normflows as nf

    steps = [part for _ in range(layers) for part in step()]
    model = nf.NormalizingFlow(nf.distributions.DiagGaussian(_FEATURES), steps)
    return Density(model, model.log_prob)


def _normflows_affine() -> list[nn.Module]:
    import normflows as nf

    network = nf.nets.MLP([1, 49, 49, 2], init_zeros=True)
    return [nf.flows.AffineCouplingBlock(network), nf.flows.Permute(_FEATURES, mode="swap")]


def _normflows_spline() -> list[nn.Module]:
    import normflows as nf

    spline = nf.flows.CoupledRationalQuadraticSpline(
        _FEATURES, num_blocks=1, num_hidden_channels=26, num_bins=_BINS, tail_bound=_BOUND
    )
    return [spline, nf.flows.LULinearPermute(_FEATURES)]


def _normflows_maf() -> list[nn.Module]:
    import normflows as nf

    # One pass goes from latents to data, so a density takes D passes. `Reverse` swaps the two, but then
    # scales are at most 1, no density rises above the base's, and the fit is much worse.
    layer = nf.flows.MaskedAffineAutoregressive(_FEATURES, 35, num_blocks=1)
    return [layer, nf.flows.Permute(_FEATURES, mode="swap")]


MODELS: dict[str, dict[str, Callable[[], nn.Module]]] = {
    "affine coupling": {
        OURS: lambda: real_nvp((_FEATURES,), couplings=_AFFINE_LAYERS, hidden=48),
        "zuko": lambda: _zuko("RealNVP", _AFFINE_LAYERS, 49),
        "normflows": lambda: _normflows(_normflows_affine, _AFFINE_LAYERS),
    },
    "spline coupling": {
        OURS: lambda: neural_spline((_FEATURES,), steps=_SPLINE_LAYERS, hidden=34, bins=_BINS, bound=_BOUND),
        # passes=2 makes couplings of the autoregressive layers, as zuko's documentation says.
        "zuko": lambda: _zuko("NSF", _SPLINE_LAYERS, 27, bins=_BINS, passes=2),
        "normflows": lambda: _normflows(_normflows_spline, _SPLINE_LAYERS),
    },
    "MAF": {
        OURS: lambda: maf((_FEATURES,), layers=_MAF_LAYERS, hidden=(48, 48)),
        "zuko": lambda: _zuko("MAF", _MAF_LAYERS, 49),
        "normflows": lambda: _normflows(_normflows_maf, _MAF_LAYERS),
    },
}
