"""The bench of the forecast reads what a run prints."""

import pytest

from bench.forecast import Said, parse
from training.cost import Cost

MIB = 2**20


def test_what_a_run_prints_is_read() -> None:
    expected = Cost(features=7.0, fit=7300.0, calibration=6.0, disk=126 * MIB, memory=1536 * MIB)
    taken = Cost(features=1.0, fit=8.0, calibration=0.5, disk=3 * MIB, memory=692 * MIB)
    output = f"32 good pictures\nforecast: {expected}\nepoch 1\nit took:  {taken}\npublished"
    assert parse(output) == (
        Said(7313 // 60 * 60, 126 * MIB, 1536 * MIB),  # hours are said without seconds
        Said(9.5, 3 * MIB, 692 * MIB),
    )


@pytest.mark.parametrize("output", ["", "forecast: 1.0 s (x), disk 1 MiB, memory 1 MiB", "it took: 1 s"])
def test_a_line_that_is_missing_is_told(output: str) -> None:
    with pytest.raises(ValueError, match="expected a line of the forecast"):
        parse(output)
