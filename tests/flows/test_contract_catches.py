"""The contract itself is tested: each deliberate error must fail the check that is there to see it."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from flows import AffineCoupling, ChannelAffine, Compose, Permutation
from tests.flows.cases import coupling
from tests.flows.contract import CHECKS, Setting
from tests.flows.wrong import WRONG, affine, chain, half, shuffle

pytestmark = pytest.mark.usefixtures("one_thread")

SETTING = Setting((3, 2, 2), rows=3, seed=5)


RIGHT = {
    "affine": affine(ChannelAffine),
    "shuffle": shuffle(Permutation),
    "half": half(AffineCoupling),
    "chain": chain(Compose),
}
EXPECTED = [(name, check) for name, (_, checks) in WRONG.items() for check in sorted(checks)]


@pytest.mark.parametrize(("name", "check"), EXPECTED)
def test_a_wrong_transform_fails(name: str, check: str) -> None:
    make, _ = WRONG[name]
    with pytest.raises(AssertionError):
        CHECKS[check](make, SETTING)


def test_every_check_is_there_for_some_error() -> None:
    assert {check for _, checks in WRONG.values() for check in checks} == set(CHECKS)


def test_a_lost_h_w_needs_more_than_one_position_to_be_seen() -> None:
    """Why the table has images: on vectors this error is none."""
    make, _ = WRONG["H W dropped"]
    CHECKS["log_det"](make, replace(SETTING, event=(3,)))


@pytest.mark.parametrize(
    "name", ["H W dropped", "sign flipped in both directions", "log_det before the clamp"]
)
def test_the_round_trip_alone_would_miss_errors_common_to_both_directions(name: str) -> None:
    """Why there is a Jacobian: the log_dets of these cancel."""
    make, _ = WRONG[name]
    CHECKS["round_trip"](make, SETTING)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("make", RIGHT)
def test_the_same_transforms_without_an_error_pass(make: str, check: str) -> None:
    CHECKS[check](RIGHT[make], SETTING)


def test_a_check_reports_what_was_broken() -> None:
    make, _ = WRONG["H W dropped"]
    with pytest.raises(AssertionError, match="forward: log_det is off by"):
        CHECKS["log_det"](make, SETTING)


def test_conditioners_of_the_table_are_not_constant() -> None:
    """A conditioner that ignored its input would make a coupling conditioned on anything pass."""
    torch.manual_seed(0)
    network: nn.Module = SETTING.transform(coupling).get_submodule("conditioner")
    x = SETTING.input()[:, :2]
    assert not torch.allclose(network(x)[0], network(x)[1])
