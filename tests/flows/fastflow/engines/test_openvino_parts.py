"""What graphs for OpenVINO are made of."""

import pytest

pytest.importorskip("openvino")

from flows.fastflow.engines.openvino_parts import portions


@pytest.mark.parametrize(
    ("n", "sizes", "expected"),
    [
        (0, (4, 1), []),
        (1, (4, 1), [(0, 1)]),
        (4, (4, 1), [(0, 4)]),
        (6, (4, 1), [(0, 4), (4, 5), (5, 6)]),
        (15, (8, 4, 2, 1), [(0, 8), (8, 12), (12, 14), (14, 15)]),
        (3, (1,), [(0, 1), (1, 2), (2, 3)]),
    ],
)
def test_portions_follow_each_other_the_largest_first(
    n: int, sizes: tuple[int, ...], expected: list[tuple[int, int]]
) -> None:
    assert portions(n, sizes) == expected
