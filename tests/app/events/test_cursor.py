import pytest

from app.events.cursor import Cursors

HERE = Cursors("6b1e6f5e-6f0e-4a53-9a6a-3f9c1d2b7a10")
ELSEWHERE = Cursors("7b1e6f5e-6f0e-4a53-9a6a-3f9c1d2b7a10")


@pytest.mark.parametrize("number", [0, 255, 2**40])
def test_cursor_has_its_number(number: int) -> None:
    assert HERE.read(HERE.at(number)) == number


def test_cursor_of_another_history_is_recognised() -> None:
    assert HERE.read(ELSEWHERE.at(7)) is None


@pytest.mark.parametrize(
    "text", ["", "7", "x" * 22, "6b1e6f5e-", "6b1e6f5e-7\n", "6b1e6f5e-\u0667", "6b1e6f5e-7-7"]
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no cursor"):
        HERE.read(text)
