import uuid

import pytest

from app.feed.cursor import Cursors, NotACursor

HERE = Cursors(str(uuid.UUID(int=1 << 100)))
ELSEWHERE = Cursors(str(uuid.UUID(int=2 << 100)))


@pytest.mark.parametrize("number", [0, 1, 255, 2**40, 2**63 - 1])
def test_a_cursor_names_its_number(number: int) -> None:
    assert HERE.read(HERE.at(number)) == number
    assert len(HERE.at(number)) == 22


def test_a_cursor_of_another_history_names_nothing() -> None:
    assert HERE.read(ELSEWHERE.at(7)) is None


@pytest.mark.parametrize("text", ["", "7", "x" * 22, "\n", "é", "A" * 200, HERE.at(7)[:-1], HERE.at(7) + "A"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(NotACursor):
        HERE.read(text)
