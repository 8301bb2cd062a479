"""Drawings of two-dimensional densities: simple flows of a base, and fitted flows.

Every density is exact: the change of variables on a grid, not an estimate from samples. matplotlib (the extra
`plots`) draws them without a display.
"""

import math
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import avg_pool2d

from flows import Compose, Inverse, Planar, Radial, Transform, standard_normal_log_prob
from training.density.plane import FittedTarget

LogProb = Callable[[Tensor], Tensor]
View = tuple[float, float, float, float]  # left, right, bottom, top

DEPTHS = (1, 2, 10)
# Points per batch, small enough for the processor's cache.
_ROWS = 8192
_COLOURS = "magma"
_GREY = "#444444"
_SAMPLES = "#3b0f70"


def uniform_log_prob(z: Tensor) -> Tensor:
    """Compute the log-density (N,) of the uniform distribution over [-2, 2]^2 at z (N, 2)."""
    inside = (z.abs() <= 2).all(1)
    return z.new_full((len(z),), -2 * math.log(4)).masked_fill(~inside, -math.inf)


def planar_layers(count: int) -> list[Planar]:
    """Draw visible planar flows, base to data; the first K of them are the flow of depth K."""
    # The seeds were picked by eye among those whose ten layers stay within the drawing.
    draw = torch.Generator().manual_seed(182)
    layers = []
    for i in range(count):
        layer = Planar(2).double()
        angle = _between(draw, 0, 2 * math.pi)
        off = _between(draw, -0.9, 0.9)  # u nearly along w or against it: alternately a push and a pull
        strength = _between(draw, 1, 2.5)
        push = _between(draw, 0.4, 1.6) * (-1) ** i
        with torch.no_grad():
            layer.w.copy_(strength * _direction(angle))
            layer.u.copy_(push * _direction(angle + off))
            layer.b.fill_(_between(draw, -1.5, 1.5))
        layers.append(layer)
    return layers


def radial_layers(count: int) -> list[Radial]:
    """Draw radial flows, base to data, that alternately expand and contract around a centre."""
    draw = torch.Generator().manual_seed(190)
    layers = []
    for i in range(count):
        layer = Radial(2).double()
        angle, distance = _between(draw, 0, 2 * math.pi), _between(draw, 0, 1.7)
        alpha = _between(draw, 0.4, 1.2)
        # alpha + beta; its ratio to alpha is the slope at the centre.
        total = alpha * math.exp(_between(draw, 0.5, 1.3) if i % 2 == 0 else -_between(draw, 0.5, 1.2))
        with torch.no_grad():
            layer.center.copy_(distance * _direction(angle))
            layer.raw_alpha.fill_(math.log(math.expm1(alpha)))
            layer.raw_sum.fill_(math.log(math.expm1(total)))
        layers.append(layer)
    return layers


def data_to_base(layers: Sequence[Transform]) -> Transform:
    """Build the transform of y = f_K( ... f_1(z)) with z from the base and layers f from base to data.

    A flow maps data to latents, so it applies the inverses in reverse order.
    """
    return Compose([Inverse(layer) for layer in reversed(layers)])


def grid(view: View, side: int) -> Tensor:
    """Compute points for `pixels`, (4 side^2, 2), float64: 2 x 2 per pixel of a side x side image."""
    left, right, bottom, top = view
    steps = (torch.arange(2 * side, dtype=torch.float64) + 0.5) / (2 * side)
    y, x = torch.meshgrid(bottom + (top - bottom) * steps, left + (right - left) * steps, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1)


def pixels(log_prob: Tensor, side: int) -> Tensor:
    """Average densities per pixel, (side, side) from bottom to top, from log-densities on `grid`."""
    return avg_pool2d(log_prob.double().exp().view(1, 1, 2 * side, 2 * side), 2)[0, 0]


@torch.no_grad()
def planar_and_radial(*, side: int = 190) -> bytes:
    """Draw a normal and a uniform density under planar and radial flows of growing depth.

    After Rezende and Mohamed 2015, arXiv 1505.05770, Figure 1, which shows the same with other parameters.
    """
    bases: dict[str, LogProb] = {"standard normal": standard_normal_log_prob, "uniform": uniform_log_prob}
    families: dict[str, Sequence[Transform]] = {
        "planar flow": planar_layers(max(DEPTHS)),
        "radial flow": radial_layers(max(DEPTHS)),
    }
    half = 4.5
    view = (-half, half, -half, half)
    points = grid(view, side)
    # Square roots bring out faint areas; densities beyond the scale get its last colour.
    norm = PowerNorm(0.5, 0.0, 0.3)
    figure = Figure(figsize=(14, 4.2), dpi=112, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    # The base appears once, before both families.
    first, *rest = figure.subfigures(
        1, 3, squeeze=False, width_ratios=[1.15, len(DEPTHS), len(DEPTHS) + 0.4]
    )[0]
    first.suptitle(" ", fontsize=15)  # keeps the rows of all three level
    for axis, (name, base) in zip(first.subplots(2, 1), bases.items(), strict=True):
        _show(axis, pixels(base(points), side), view, norm)
        axis.set_ylabel(name, fontsize=13, color=_GREY)
    first.axes[0].set_title("base", fontsize=13, color=_GREY)
    for part, (family, layers) in zip(rest, families.items(), strict=True):
        part.suptitle(family, fontsize=15)
        axes = part.subplots(2, len(DEPTHS))
        for column, depth in enumerate(DEPTHS):
            transform = data_to_base(layers[:depth])
            moved = [transform.forward(rows) for rows in torch.split(points, _ROWS)]
            z, log_det = torch.cat([z for z, _ in moved]), torch.cat([log_det for _, log_det in moved])
            for row, base in enumerate(bases.values()):
                image = _show(axes[row, column], pixels(base(z) + log_det, side), view, norm)
            axes[0, column].set_title(f"K = {depth}", fontsize=13, color=_GREY)
    bar = rest[-1].colorbar(image, ax=rest[-1].axes, extend="max", ticks=[0, 0.01, 0.05, 0.1, 0.2, 0.3])
    bar.set_label("density", color=_GREY)
    return _png(figure)


@torch.no_grad()
def learned_densities(
    results: Sequence[FittedTarget], title: str, *, side: int = 160, points: int = 2000
) -> bytes:
    """Draw targets and fitted flows, a column each.

    From the top: the target's density, the learned density in the same colours, samples of the target,
    samples of the flow. A column's colours end at the target's highest density in the drawing.
    """
    columns = len(results)
    panel = max(1.5, min(2.6, 13.6 / columns))
    width = columns * panel + 0.6
    height = 4 * panel + 1.1
    figure = Figure(figsize=(width, height), dpi=112, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(4, columns, squeeze=False, gridspec_kw={"wspace": 0.05, "hspace": 0.05})
    figure.subplots_adjust(
        left=0.45 / width, right=1 - 0.1 / width, top=1 - 0.8 / height, bottom=0.3 / height
    )
    for column, result in enumerate(results):
        generator = torch.Generator().manual_seed(0)
        data = result.target.sample(max(points, 1000), generator)
        drawn = result.flow.sample(points, generator=generator)
        view = _square_view(data)
        at = grid(view, side)
        of_target = pixels(result.target.log_prob(at), side)
        learned = pixels(
            torch.cat([result.flow.log_prob(rows) for rows in torch.split(at.float(), _ROWS)]), side
        )
        norm = Normalize(0, float(of_target.max()))
        _show(axes[0, column], of_target, view, norm)
        _show(axes[1, column], learned, view, norm)
        _scatter(axes[2, column], data[:points], view)
        _scatter(axes[3, column], drawn, view)
        axes[0, column].set_title(result.target.name.replace("_", " "), fontsize=12)
        axes[3, column].set_xlabel(f"KL {result.divergence:.3f} nats", fontsize=10, color=_GREY)
    for row, name in enumerate(("target density", "learned density", "data", "flow's samples")):
        axes[row, 0].set_ylabel(name, fontsize=12, color=_GREY)
    figure.suptitle(title, fontsize=13, y=1 - 0.18 / height, va="top")
    return _png(figure)


def _between(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def _direction(angle: float) -> Tensor:
    return torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)


def _square_view(samples: Tensor) -> View:
    """Choose a square without the far ends of long tails, which would shrink the rest to a speck."""
    low, high = samples.quantile(0.005, dim=0), samples.quantile(0.995, dim=0)
    middle = (low + high) / 2
    half = 0.58 * float((high - low).max())
    x, y = middle.tolist()
    return (x - half, x + half, y - half, y + half)


def _show(axes: Axes, density: Tensor, view: View, norm: Normalize) -> Any:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    # "equal": a unit is as long on both axes.
    return axes.imshow(
        density.numpy(),
        origin="lower",
        extent=view,
        cmap=_COLOURS,
        norm=norm,
        aspect="equal",
        interpolation="none",
    )


def _scatter(axes: Axes, samples: Tensor, view: View) -> None:
    axes.set(xticks=[], yticks=[], xlim=view[:2], ylim=view[2:], aspect="equal")
    axes.spines[:].set_color("#cccccc")
    x, y = samples.T.numpy()
    axes.scatter(x, y, s=1.2, color=_SAMPLES, alpha=0.5, linewidths=0)


def _png(figure: Figure) -> bytes:
    file = BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
