import pytest

from app.web import messages
from app.web.words import p_value_words


@pytest.mark.parametrize(
    ("k", "words"),
    [
        (0, "None of the 42 good parts"),
        (1, "1 of the 42 good parts in calibration scored this high or higher"),
        (21, "21 of the 42 good parts"),
        (22, "An ordinary score: 22 of the 42"),
        (42, "An ordinary score: 42 of the 42"),
    ],
)
def test_a_p_value_is_told_as_the_count_it_was_made_of(k: int, words: str) -> None:
    assert p_value_words(messages.languages()["en"], (1 + k) / 43, 42).startswith(words)
