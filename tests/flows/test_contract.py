"""Contract tests of every transform in the table of cases.py."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.flows.cases import CASES, Case
from tests.flows.contract import CHECKS, Setting, check_compiles

SETTINGS = {
    "vectors": Setting((2,)),
    "vectors, odd": Setting((5,), rows=2, seed=1),
    "vectors, one": Setting((1,), rows=1),
    "images, odd channels": Setting((3, 2, 4), rows=2, seed=2),
    "images, tall, one": Setting((4, 3, 1), rows=1, seed=3),
    "images, one channel": Setting((1, 2, 3), rows=2),
    "images, two scales": Setting((1, 4, 4), rows=2, seed=6),
    "images, fresh": Setting((3, 2, 2), rows=2, spread=None),
    "images, large parameters": Setting((3, 1, 2), rows=2, seed=4, spread=3.0),
    "images, no rows": Setting((3, 2, 4), rows=0),
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_contract(case: Case, setting: str) -> None:
    chosen = SETTINGS[setting]
    if not case.takes(chosen.event):
        with pytest.raises(ValueError, match="expected"):
            case.make(chosen.event).double().eval().forward(chosen.data(case))
        return
    broken = {}
    for name, check in CHECKS.items():
        try:
            check(case, chosen)
        except AssertionError as error:
            broken[name] = str(error)  # report all broken checks
    assert not broken


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("spread", [1e-8, 10.0])
@pytest.mark.parametrize("seed", range(2))
def test_extreme_parameters_round_trip(case: Case, spread: float, seed: int) -> None:
    """Scales from 1e-20 to 1e20, and saturated clamps, must round trip too."""
    event = next(event for event in [(3, 2, 1), (3, 2, 2), (3,), (1, 4, 4)] if case.takes(event))
    setting = Setting(event, rows=2, seed=seed, spread=spread)
    CHECKS["round_trip"](case, setting)


@settings(max_examples=60)
@given(
    case=st.sampled_from(CASES),
    rows=st.integers(1, 2),
    channels=st.integers(1, 6),
    size=st.none() | st.tuples(st.integers(1, 4), st.integers(1, 4)),
    seed=st.integers(0, 2**31),
    spread=st.none() | st.floats(0, 2),
)
def test_log_det_and_round_trip_for_any_shape_and_parameters(
    case: Case, rows: int, channels: int, size: tuple[int, int] | None, seed: int, spread: float | None
) -> None:
    event = (channels, *(size or ()))
    assume(case.takes(event))
    setting = Setting(event, rows, seed, spread)
    CHECKS["log_det"](case, setting)
    CHECKS["round_trip"](case, setting)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_transform_compiles(case: Case) -> None:
    event = next(event for event in [(3, 2, 2), (3,), (1, 4, 4)] if case.takes(event))
    check_compiles(case, Setting(event))
