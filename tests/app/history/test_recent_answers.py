import pytest

from app.history.recent_answers import RecentAnswers


def row(identifier: str, key: str | None, key_id: str | None = None, answer: str = "{}") -> dict[str, object]:
    return {
        "id": identifier,
        "idempotency_key": key,
        "key_id": key_id,
        "request_sha256": "a" * 64,
        "answer": answer,
        "map_low": 0.5,
        "map_middle": 2.0,
    }


def found(recent: RecentAnswers, key: str, key_id: str | None = None) -> str | None:
    answer = recent.find(key_id, key)
    return None if answer is None else answer.earlier.id


def test_the_first_of_a_key_is_remembered_and_nothing_of_other_callers() -> None:
    recent = RecentAnswers()
    for position, one in enumerate((row("1", "k"), row("2", "k"), row("3", "k", "caller"), row("4", None))):
        recent.add(one, position)
    assert [found(recent, "k"), found(recent, "k", "caller"), found(recent, "k", "other")] == ["1", "3", None]
    answer = recent.find("caller", "k")
    assert answer is not None
    assert (answer.earlier.request_sha256, answer.earlier.answer, answer.position) == ("a" * 64, "{}", 2)


@pytest.mark.parametrize("repeats", [1, 3])
def test_the_oldest_are_forgotten(repeats: int) -> None:
    recent = RecentAnswers(max_bytes=100)
    for number in range(5):
        for _ in range(repeats):  # counted once
            recent.add(row(str(number), f"k{number}", answer="x" * 40), number)
    assert [found(recent, f"k{number}") for number in range(5)] == [None, None, None, "3", "4"]
