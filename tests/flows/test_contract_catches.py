"""Tests of the contract itself: each seeded fault must fail its checks."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.flows.cases import Case, coupling
from tests.flows.contract import CHECKS, Setting
from tests.flows.faults import FAULTS

VECTORS = Setting((4,), rows=3, seed=5)
IMAGES = Setting((3, 2, 2), rows=3, seed=5)
EXPECTED = [(name, check) for name, fault in FAULTS.items() for check in sorted(fault.checks)]


def setting(case: Case) -> Setting:
    """Choose images where possible: some faults have no effect on vectors."""
    return IMAGES if case.takes(IMAGES.event) else VECTORS


@pytest.mark.parametrize(("name", "check"), EXPECTED)
def test_fault_fails_its_checks(name: str, check: str) -> None:
    fault = FAULTS[name]
    CHECKS[check](fault.case, setting(fault.case))
    with fault.seeded(), pytest.raises(AssertionError):
        CHECKS[check](fault.case, setting(fault.case))


def test_every_check_catches_some_fault() -> None:
    assert {check for fault in FAULTS.values() for check in fault.checks} == set(CHECKS)


def test_lost_h_w_needs_more_than_one_position() -> None:
    """The table has images because this fault has no effect on vectors."""
    fault = FAULTS["H W dropped"]
    with fault.seeded():
        CHECKS["log_det"](fault.case, replace(IMAGES, event=(3,)))
        with pytest.raises(AssertionError, match="forward: log_det is off by"):
            CHECKS["log_det"](fault.case, IMAGES)


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
def test_round_trip_misses_errors_of_both_directions(name: str) -> None:
    """The contract needs a Jacobian because the log_dets of these faults cancel."""
    fault = FAULTS[name]
    with fault.seeded():
        CHECKS["round_trip"](fault.case, setting(fault.case))


def test_conditioners_of_the_table_are_not_constant() -> None:
    """With a constant conditioner, a coupling conditioned on the wrong half would pass."""
    case = Case("coupling", coupling)
    network: nn.Module = IMAGES.transform(case).get_submodule("conditioner")
    x = IMAGES.data(case)[:, :2]
    assert not torch.allclose(network(x)[0], network(x)[1])
