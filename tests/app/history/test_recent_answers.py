from app.history.recent_answers import RecentAnswers


def row(identifier: str, key: str | None, key_id: str | None = None) -> dict[str, object]:
    return {
        "id": identifier,
        "idempotency_key": key,
        "key_id": key_id,
        "request_sha256": "a" * 64,
        "answer": "{}",
        "map_low": 0.5,
        "map_middle": 2.0,
    }


def found(recent: RecentAnswers, key: str, key_id: str | None = None) -> str | None:
    answer = recent.find(key_id, key)
    return None if answer is None else answer.id


def test_first_answer_of_a_callers_key_is_kept() -> None:
    recent = RecentAnswers()
    for one in (row("1", "k"), row("2", "k"), row("3", "k", "caller"), row("4", None)):
        recent.add(one)
    assert [found(recent, "k"), found(recent, "k", "caller"), found(recent, "k", "other")] == ["1", "3", None]
    answer = recent.find("caller", "k")
    assert answer is not None
    assert (answer.request_sha256, answer.answer, answer.map_middle) == ("a" * 64, "{}", 2.0)


def test_oldest_answers_are_dropped() -> None:
    recent = RecentAnswers(max_bytes=20)
    for number in (0, 1, 1, 1, 2, 3):  # what is repeated counts once
        recent.add({**row(str(number), f"k{number}"), "answer": "0123456789"})
    assert [found(recent, f"k{number}") for number in range(4)] == [None, None, "2", "3"]
    recent.add({**row("4", "k4"), "answer": "0123456789 and more"})
    assert [found(recent, f"k{number}") for number in range(5)] == [None, None, None, None, "4"]
