"""The bench of convolutions sets both forms of a backbone beside each other."""

import pytest
import torch

pytest.importorskip("openvino")

from bench.convolutions import Found, measure


def test_both_forms_are_computed_in_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    found = measure("resnet18", (1, 2), "float32", side=96, rounds=2, threads=1)
    assert found.anew == 7
    # Each kernel of 9 weights becomes 36 factors.
    assert found.weights[1] > 3 * found.weights[0]
    assert 0 < found.difference < 2e-5
    for own, tiled in (found.batch, found.one):
        assert len(own) == len(tiled) == 2
        assert min(*own, *tiled) > 0


def test_in_bfloat16_the_convolution_of_pixels_is_another() -> None:
    found = measure("resnet18", (1,), "openvino-bfloat16", side=64, rounds=1, threads=1)
    assert found.anew == 1
    # What rounds differs by roundings; on a processor that does not round, by less.
    assert 0 <= found.difference < 0.05
    assert min(*found.batch[0], *found.batch[1]) > 0


def test_a_ratio_is_that_of_a_round() -> None:
    found = Found("n", "float32", 3, (9.4, 37.7), ([2, 9, 4], [1, 3, 8]), ([3, 3, 3], [6, 3, 1]), 2.6e-6)
    assert found.row() == "| n | 3 | 9 / 38 | 4.0 / 3.0 | 2.00 | 3.0 / 3.0 | 1.00 | 3e-06 |"
