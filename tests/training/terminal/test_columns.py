"""Tables on a terminal."""

from training.terminal.columns import aligned

TABLE = [["category", "n", "why"], ["a", "1,000", ""], ["bb", "20", "it is late"]]


def test_text_is_to_the_left_and_numbers_are_to_the_right() -> None:
    assert aligned(TABLE, left=(0, 2)) == [
        "category      n  why",
        "a         1,000",
        "bb           20  it is late",
    ]
    assert aligned([row[:2] for row in TABLE]) == ["category      n", "a         1,000", "bb           20"]
