import math

import pytest
import torch

from flows.fastflow.alike import are_alike


@pytest.mark.parametrize("shape", [(), (3,), (2, 4, 5)])
def test_every_row_counts_and_by_its_share_alone(shape: tuple[int, ...]) -> None:
    one = torch.full((1, *shape), 100.0)
    rows = one.repeat(4, *[1] * len(shape))
    assert are_alike(rows, one, 0.0)
    rows[-1] *= 1.04
    assert are_alike(rows, one, 0.05)
    assert not are_alike(rows, one, 0.03)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["rows", "one"])
def test_what_is_no_number_is_like_nothing(where: str, value: float) -> None:
    rows, one = torch.ones(3, 5), torch.ones(1, 5)
    (rows if where == "rows" else one)[0, 2] = value
    assert not are_alike(rows, one, 0.5)
