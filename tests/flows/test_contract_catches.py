"""The contract itself is tested: each fault in the flows must fail the checks that are there to see it."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.flows.cases import Case, coupling
from tests.flows.contract import CHECKS, Setting
from tests.flows.wrong import WRONG

VECTORS = Setting((4,), rows=3, seed=5)
IMAGES = Setting((3, 2, 2), rows=3, seed=5)
EXPECTED = [(name, check) for name, wrong in WRONG.items() for check in sorted(wrong.checks)]


def setting(case: Case) -> Setting:
    """Images, for what takes them: some errors are none on vectors."""
    return IMAGES if case.takes(IMAGES.event) else VECTORS


@pytest.mark.parametrize(("name", "check"), EXPECTED)
def test_a_fault_fails(name: str, check: str) -> None:
    wrong = WRONG[name]
    CHECKS[check](wrong.case, setting(wrong.case))
    with wrong.seeded(), pytest.raises(AssertionError):
        CHECKS[check](wrong.case, setting(wrong.case))


def test_every_check_is_there_for_some_error() -> None:
    assert {check for wrong in WRONG.values() for check in wrong.checks} == set(CHECKS)


def test_a_lost_h_w_needs_more_than_one_position_to_be_seen() -> None:
    """Why the table has images: on vectors this error is none."""
    wrong = WRONG["H W dropped"]
    with wrong.seeded():
        CHECKS["log_det"](wrong.case, replace(IMAGES, event=(3,)))
        with pytest.raises(AssertionError, match="forward: log_det is off by"):
            CHECKS["log_det"](wrong.case, IMAGES)


@pytest.mark.parametrize(
    "name",
    [
        "H W dropped",
        "sign flipped in both directions",
        "log_det before the clamp",
        "planar with tanh for its slope",
        "radial with D for D - 1",
        "checkerboard counted whole",
        "spline's slope halved",
        "logit with the paper's factor",
    ],
)
def test_the_round_trip_alone_would_miss_errors_common_to_both_directions(name: str) -> None:
    """Why there is a Jacobian: the log_dets of these cancel."""
    wrong = WRONG[name]
    with wrong.seeded():
        CHECKS["round_trip"](wrong.case, setting(wrong.case))


def test_conditioners_of_the_table_are_not_constant() -> None:
    """A conditioner that ignored its input would make a coupling conditioned on anything pass."""
    case = Case("coupling", coupling)
    network: nn.Module = IMAGES.transform(case).get_submodule("conditioner")
    x = IMAGES.data(case)[:, :2]
    assert not torch.allclose(network(x)[0], network(x)[1])
