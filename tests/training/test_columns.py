"""Tables on a terminal."""

import pytest

from training.columns import aligned

TABLE = [["category", "n", "why"], ["a", "1,000", ""], ["bb", "20", "it is late"]]


def test_text_is_to_the_left_and_numbers_are_to_the_right() -> None:
    assert aligned(TABLE, left=(0, 2)) == [
        "category      n  why",
        "a         1,000",
        "bb           20  it is late",
    ]
    assert aligned([row[:2] for row in TABLE]) == ["category      n", "a         1,000", "bb           20"]


def test_rows_of_other_numbers_of_cells_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        aligned([["a", "b"], ["a"]])
