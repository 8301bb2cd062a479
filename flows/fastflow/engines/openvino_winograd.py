"""A backbone's 3x3 convolutions with a quarter of the multiplications, by Winograd's minimal filtering.

Of a tile of 4 x 4 positions such a convolution takes 36 products of channels instead of 144: F(4x4, 3x3) of
Lavin and Gray 2016, arXiv 1509.09308. On x86 OpenVINO convolves directly. So it is put together here of what
OpenVINO is fast at: rows that are gathered, sums, and products of matrices.

Maps lie flat meanwhile, (H, W * C): those of four dimensions OpenVINO lays out now one way and now another,
which takes more time than is gained. What it gains, and where, is in docs/performance.md.
"""

import itertools
import math
from typing import Any, Final

import numpy as np
import openvino.opset13 as op
import torch
from numpy.typing import NDArray

from flows.fastflow.engines.openvino_convolutions import Convolution, found_in, is_one
from flows.fastflow.engines.openvino_parts import constant

# Positions along the side of a tile that comes out, and of the one that goes in for it.
_TILE: Final = 4
_SEES: Final = _TILE + 2
# The filter transform, as the paper has it. Those of data, B^T and A^T, are written out below.
_G: Final = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
# From so many channels on, between those that go in and those that come out, by the vectors that torch says a
# processor has, and so many tiles, it takes less time (docs/performance.md). The wider they are, the more is
# spent on moving numbers and the less on multiplying them.
_FEWEST_CHANNELS: Final = {"AVX2": 56, "AVX512": 112}
_FEWEST_TILES: Final = 9


def fewest_channels() -> int | None:
    """From how many channels on this processor gains by tiles; None where that is not known."""
    return _FEWEST_CHANNELS.get(torch.backends.cpu.get_cpu_capability())


def rewrite(model: Any) -> int:
    """Have 3x3 convolutions computed by tiles where that takes less time, in place.

    Each differs by roundings, 1e-5 of what comes out at most.

    Args:
        model: a backbone in float32. What is not of one picture and of a fixed size stays as it is.

    Returns:
        How many are computed so.
    """
    fitting = {c.node.get_name(): c for c in found_in(model, _fits)}
    if not fitting:
        return 0
    flat = _FlatMaps()
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if (convolution := fitting.get(node.get_name())) is not None:
            flat.put(convolution.after.output(0), _by_tiles(convolution, flat.of(node.input_value(0))))
        # What follows is computed on flat maps, too, or they would be turned for it and back.
        elif kind == "Relu" and flat.has(node.input_value(0)):
            flat.put(node.output(0), op.relu(flat.of(node.input_value(0))))
        elif kind == "Add" and _joins_maps(node) and any(map(flat.has, node.input_values())):
            flat.put(node.output(0), op.add(*map(flat.of, node.input_values())))
        elif kind == "Multiply" and flat.has(given := node.input_value(1)) and is_one(node.input_value(0)):
            flat.put(node.output(0), flat.of(given))
    model.validate_nodes_and_infer_types()
    return len(fitting)


class _FlatMaps:
    """Maps, (1, C, H, W), that are there as (H, W * C), too."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], Any] = {}

    def has(self, port: Any) -> bool:
        """Whether a map is there flat."""
        return _name(port) in self._known

    def of(self, port: Any) -> Any:
        """A map, flat."""
        if not self.has(port):
            channels, height, width = _sides(port)
            turned = op.transpose(port, _integers(0, 2, 3, 1))
            self._known[_name(port)] = _reshaped(turned, height, width * channels)
        return self._known[_name(port)]

    def put(self, port: Any, flat: Any) -> None:
        """Put a flat map in the place of a map."""
        channels, height, width = _sides(port)
        turned = op.transpose(_reshaped(flat, 1, height, width, channels), _integers(0, 3, 1, 2))
        port.replace(turned.output(0))
        self._known[_name(turned.output(0))] = flat


def _fits(node: Any) -> bool:
    """Whether a convolution can be computed by tiles, and takes less time so."""
    found, weights = node.get_output_partial_shape(0), node.get_input_partial_shape(1)
    if not (found.is_static and weights.is_static) or found[0].get_length() != 1:
        return False
    *groups, out, channels, height, width = weights.to_shape()
    how = node.get_attributes()
    around = {*how["pads_begin"], *how["pads_end"]}
    steps = {*how["strides"], *how["dilations"]}
    if groups not in ([], [1]) or (height, width) != (3, 3) or around != {1} or steps != {1}:
        return False
    # The harmonic mean: both are moved about, and each is multiplied by the other.
    between = 2 * out * channels / (out + channels)
    fewest = fewest_channels() or _FEWEST_CHANNELS["AVX2"]
    tiles = math.prod(_tiles(*found.to_shape()[2:]))
    return bool(between >= fewest and tiles >= _FEWEST_TILES)


def _tiles(height: int, width: int) -> tuple[int, int]:
    """How many cover a map, down and across; the last may lie beyond its edge."""
    return -(-height // _TILE), -(-width // _TILE)


def _by_tiles(convolution: Convolution, flat: Any) -> Any:
    """The convolution with what is taken into its weights and bias, of a flat map: a flat map."""
    weights = convolution.weights[0]
    out, channels = weights.shape[:2]
    _, height, width = _sides(convolution.node.input_value(0))
    rows, columns = _tiles(height, width)
    # Zeros around the map, and beyond it as far as the last tiles see.
    tall, wide = rows * _TILE + 2, columns * _TILE + 2
    beyond = _integers(tall - height - 1, (wide - width - 1) * channels)
    zero = constant(0).output(0)
    padded = op.pad(flat, _integers(1, channels), beyond, "constant", zero)

    # Of all tiles their first rows, then their second ones, up to the sixth.
    firsts = [_TILE * a + i for i in range(_SEES) for a in range(rows)]
    seen = _reshaped(_gathered(padded, firsts), _SEES, rows * wide * channels)
    by_row = _reshaped(_data_transform(seen), _SEES * rows * wide, channels)
    # Of what that gives, the same by columns.
    order = itertools.product(range(_SEES), range(_SEES * rows), range(columns))
    positions = [row * wide + _TILE * b + j for j, row, b in order]
    seen = _reshaped(_gathered(by_row, positions), _SEES, _SEES * rows * columns * channels)
    factors = _reshaped(_data_transform(seen), _SEES * _SEES, rows * columns, channels)

    products = op.matmul(factors, constant(_filter_transform(weights)), False, True)

    tiles = rows * columns * out
    by_column = _inverse_transform(_reshaped(products, _SEES, _SEES * tiles))
    turned = op.transpose(_reshaped(by_column, _TILE, _SEES, tiles), _integers(1, 0, 2))
    found = _inverse_transform(_reshaped(turned, _SEES, _TILE * tiles))
    # (row in a tile, column in it, row of it, its column, C) to a map.
    placed = op.transpose(_reshaped(found, _TILE, _TILE, rows, columns, out), _integers(2, 0, 3, 1, 4))
    if convolution.bias is not None:
        placed = op.add(placed, constant(convolution.bias.reshape(1, 1, 1, 1, -1)))
    whole = _reshaped(placed, rows * _TILE, columns * _TILE * out)
    if (height, width) == (rows * _TILE, columns * _TILE):
        return whole
    return op.slice(whole, _integers(0, 0), _integers(height, width * out), _integers(1, 1))


def _filter_transform(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """U, (36, C', C), of weights (C', C, 3, 3); of columns first, as data are."""
    both = np.einsum("jl,ik->jikl", _G, _G).reshape(_SEES * _SEES, -1)
    flat = both @ weights.reshape(-1, both.shape[1]).T.astype(np.float64)
    found: NDArray[np.float32] = flat.reshape(-1, *weights.shape[:2]).astype(np.float32)
    return found


def _data_transform(seen: Any) -> Any:
    """B^T d, (6, n), of six positions in a row, d, (6, n)."""
    two, four, five = map(constant, (2, 4, 5))
    x0, x1, x2, x3, x4, x5 = _apart(seen)
    even, odd = x4 - four * x2, x3 - four * x1
    far_even, far_odd = x4 - x2, two * (x3 - x1)
    ends = four * x0 - five * x2 + x4, four * x1 - five * x3 + x5
    between = even + odd, even - odd, far_even + far_odd, far_even - far_odd
    return op.concat([ends[0], *between, ends[1]], 0)


def _inverse_transform(products: Any) -> Any:
    """A^T m, (4, n), four positions in a row, of six products, m, (6, n)."""
    two, four, eight = map(constant, (2, 4, 8))
    y0, y1, y2, y3, y4, y5 = _apart(products)
    even, odd = y1 + y2, y1 - y2
    far_even, far_odd = y3 + y4, y3 - y4
    found = y0 + even + far_even, odd + two * far_odd, even + four * far_even, odd + eight * far_odd + y5
    return op.concat(list(found), 0)


def _apart(rows: Any) -> list[Any]:
    """Six rows, (1, n) each."""
    parts = op.split(rows, op.constant(0), _SEES).outputs()
    # Operators are defined for nodes, and not for one of several outputs.
    return [op.reshape(part, _integers(1, -1), False) for part in parts]


def _gathered(rows: Any, order: list[int]) -> Any:
    return op.gather(rows, _integers(*order), _integers(0))


def _reshaped(x: Any, *shape: int) -> Any:
    return op.reshape(x, _integers(*shape), False)


def _integers(*values: int) -> Any:
    return constant(values, np.int64)


def _joins_maps(node: Any) -> bool:
    """Whether it adds maps of the same sides."""
    first, second = (node.input_value(i).get_partial_shape() for i in range(2))
    return bool(first == second) and len(first) == 4


def _sides(port: Any) -> tuple[int, int, int]:
    """(C, H, W) of a map."""
    _, channels, height, width = port.get_shape()
    return channels, height, width


def _name(port: Any) -> tuple[str, int]:
    return port.get_node().get_name(), port.get_index()
