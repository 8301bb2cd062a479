"""Gaussian with a covariance per cell, against its formulas in NumPy."""

import numpy as np
import torch
from torch import Tensor

from flows.fastflow.model.cells import CellGaussian, cells_per_side
from tests.flows.fastflow.model.test_gaussian import mixed

SIZE = (5, 7)
CELLS = [(rows, columns) for rows in ((0, 2), (2, 4), (4, 5)) for columns in ((0, 3), (3, 6), (6, 7))]


def fitted(x: Tensor) -> CellGaussian:
    made = CellGaussian(x.shape[1], SIZE, 3)
    made.fit(x.mean(0), torch.split(x, 5))
    return made


def test_energy_is_that_of_the_shrunk_covariances() -> None:
    x, other = mixed(12, 4, SIZE), mixed(3, 4, SIZE, seed=1) * 1.5
    centred = (x - x.mean(0)).double().numpy()
    own, counts = [], []
    for (top, bottom), (left, right) in CELLS:
        rows = centred[:, :, top:bottom, left:right].transpose(0, 2, 3, 1).reshape(-1, 4)
        counts.append(len(rows) * 11 / 12)
        own.append(rows.T @ rows / counts[-1])
    common = np.mean(own, 0)
    expected = np.zeros(3)
    for ((top, bottom), (left, right)), n, s in zip(CELLS, counts, own, strict=True):
        matrix = (n * s + 4 * np.trace(s) / np.trace(common) * common) / (n + 4)
        offset = (other - x.mean(0))[:, :, top:bottom, left:right].double().numpy()
        energies = np.einsum("ncij,cd,ndij->nij", offset, np.linalg.inv(matrix), offset) / 8
        expected = np.maximum(expected, energies.max((1, 2)))
    np.testing.assert_allclose(fitted(x)(other).numpy(), expected, rtol=1e-4)


def test_rounding_in_a_constant_cell_is_no_anomaly() -> None:
    x = mixed(12, 4, SIZE)
    x[:, :, :2, :3] = 1
    rounded = x.clone()
    rounded[:, :, :2, :3] += 1e-4
    model = fitted(x)
    torch.testing.assert_close(model(rounded), model(x))


def test_wide_maps_have_fewer_cells() -> None:
    assert [cells_per_side(c) for c in (40, 112, 256, 384, 512, 768)] == [8, 8, 4, 2, 2, None]
