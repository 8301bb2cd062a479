"""Integer input of every transform."""

import pytest
import torch

from tests.flows.cases import CASES, Case


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("event", [(2,), (3, 2, 2), (1, 4, 4)])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_integers_are_rejected_or_moved_only(case: Case, event: tuple[int, ...], direction: str) -> None:
    """Results in the dtype of the input would be truncated to integers."""
    if not case.takes(event):
        return
    torch.manual_seed(0)
    transform = case.make(event).eval()
    x = torch.randint(-3, 4, (5, *(event if direction == "forward" else case.latent(event))))
    apply = getattr(transform, direction)
    try:
        found = apply(x)
    except ValueError as error:
        assert "expected floating-point numbers; got int64" in str(error)  # noqa: PT017
        return
    for one, other in zip(found, apply(x.float()), strict=True):
        torch.testing.assert_close(one.float(), other)
    assert torch.equal(found[0].flatten().sort().values, x.flatten().sort().values)  # only moved
